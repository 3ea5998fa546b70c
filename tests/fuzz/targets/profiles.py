"""Profile YAML, as `profiles check` and `plan --profile` read it."""

from __future__ import annotations

from pathlib import Path
from random import Random

import yaml

from edge_far.profile.document import reference_yaml
from tests.fuzz.mutate import TEXTS, mutate_bytes, mutate_document
from tests.fuzz.targets.base import Case, Target

__all__ = ["ProfileFile"]

DEEP = 5000
SNIPPETS = (
    *(
        "!!python/object/apply:os.system [ls]",
        "&a [*a]",
        "*a",
        "<<: {budget_mib: 1}",
        "? [a]\n  : b",
        "!!binary aGVsbG8=",
    ),
    *("!!set {a, b}", "!!omap [a: 1]", "!!timestamp 2001-12-14", "2001-12-14", "0o17", "0x1F", "1_000", "1:30", ".inf"),
    *(
        "-.inf",
        ".nan",
        "~",
        "yes",
        "off",
        "1e3",
        "1.0e+400",
        "9" * 5000,
        "'",
        '"\\ud800"',
        '"\\x00"',
        "|\n  a\n  b",
        "[" * DEEP,
    ),
    *(
        "{a: " * DEEP,
        "!!int x",
        "!!float x",
        "!!bool x",
        "!!null x",
        "! x",
        "%YAML 1.3",
        "---\na: 1",
        "...",
        "\t- a",
        "@x",
    ),
    *(
        "2001-99-99",
        "!!timestamp 2001-99-99",
        "190:20:30",
        "0b2",
        "0x",
        "!!int ''",
        "!!float ''",
        "!!pairs [1]",
        "!!omap [1]",
    ),
    *("!!set [1]", "!!binary é", "0999", "!!str [1]", "!!map [1]", "!!seq {a: 1}", "? ? ?", "- - -", ": : :"),
)


class ProfileFile(Target):
    """A profile file."""

    name = "profile"
    codes = frozenset({0, 78})

    def prepare(self, good: Path) -> None:
        """Write the sample that names every setting."""
        (good / "profile.yaml").write_text(reference_yaml())

    def make(self, chance: Random) -> Case:
        """Return a changed profile."""
        uses = (("profiles", "check", "{work}/profile.yaml"), ("profiles", "show", "{work}/profile.yaml"))
        command = chance.choice((*uses, ("plan", "{bundle}", "--no-probe", "--profile", "{work}/profile.yaml")))
        return Case({"profile.yaml": self._content(chance)}, command)

    def _content(self, chance: Random) -> bytes:
        good = self.read("profile.yaml")
        kind = chance.randrange(6)
        if kind == 0:
            return mutate_bytes(good, chance)
        if kind <= 2:
            return _with_snippet(good.decode(), chance)
        document = yaml.safe_load(good)
        for section in [name for name in document if name != "memory" and chance.random() < 0.5]:
            del document[section]
        changed = mutate_document(document, chance)
        try:
            text = yaml.safe_dump(changed, allow_unicode=chance.random() < 0.5, sort_keys=False)
        except (yaml.YAMLError, ValueError):
            text = repr(changed)
        return text.encode("utf-8", "surrogatepass")


def _with_snippet(text: str, chance: Random) -> bytes:
    """Put a piece of odd YAML in place of a value, a key or a line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#") and line.strip()]
    place = chance.randrange(len(lines))
    key, _, _ = lines[place].partition(":")
    snippet = chance.choice((*SNIPPETS, *TEXTS))
    action = chance.randrange(4)
    if action == 0:
        lines[place] = f"{key}: {snippet}"
    elif action == 1:
        lines.insert(place, snippet)
    elif action == 2:
        lines.insert(place, f"{key}: {snippet}")
    else:
        lines[place] = f"{key.replace(key.strip(), snippet)}: 1"
    return "\n".join(lines).encode("utf-8", "surrogatepass")
