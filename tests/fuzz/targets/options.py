"""Values of options on the command line."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz.mutate import NUMBERS, TEXTS
from tests.fuzz.targets.base import Case, Target
from tests.fuzz.targets.bundles import EXAMPLES

__all__ = ["Options"]

COMMANDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("train", "{bundle}", "--train", "{work}/data.jsonl", "--out", "{work}/out", "--no-probe", "--max-steps", "1"),
        (
            *("--epochs", "--batch-size", "--learning-rate", "--optimizer", "--seed", "--max-seq-len", "--max-steps"),
            *("--micro-batch", "--checkpoint-minutes", "--checkpoint-steps", "--budget-mib", "--threads", "--profile"),
            *("--backend", "--learners", "--control", "--eval"),
        ),
    ),
    (
        ("predict", "{bundle}", "w1"),
        ("--top", "--max-seq-len", "--threads", "--profile", "--run", "--data"),
    ),
    (
        ("plan", "{bundle}", "--no-probe"),
        ("--batch-size", "--max-seq-len", "--optimizer", "--threads", "--profile", "--budget-mib", "--train"),
    ),
    (("add", "--spool", "{work}/out"), ("--text", "--label", "--id", "--prediction", "--feedback", "--text-pair")),
    (("rollback", "--state", "{work}/out"), ("--to",)),
    (("profiles", "show"), ("", "")),
    (("", ""), ("", "--json", "-q")),
)
NUMERIC = [str(number) for number in NUMBERS if abs(number) < 10**40] + ["1_0", "٣", "0x10", " 1", "1.0", "+1"]


class Options(Target):
    """One to three options with odd values; threads stay few, for more are taken at their word."""

    name = "options"
    codes = frozenset({0, 64, 65, 66, 69, 73, 74, 78})  # 74: a name longer than the file system takes

    def prepare(self, good: Path) -> None:
        """Write data."""
        (good / "data.jsonl").write_text(EXAMPLES)
        (good / "out").mkdir()

    def make(self, chance: Random) -> Case:
        """Return a command with some odd values."""
        command, options = chance.choice(COMMANDS)
        words = list(command)
        for _ in range(chance.choice((1, 1, 2, 3))):
            name = chance.choice(options)
            value = chance.choice(NUMERIC if chance.random() < 0.6 else TEXTS)
            value = value.replace("\0", "").replace("\ud800", "\udcff")  # no command line holds them
            value = "" if value == "--help" else value
            if name == "--threads" and value.strip().isdigit() and int(value) > 8:
                value = "2"
            words += [name, value] if chance.random() < 0.7 else [f"{name}={value}"]
        return Case(arguments=tuple(word for word in words if word))
