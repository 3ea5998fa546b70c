"""docs/start/install.md and service.md: every line to type names options, units, targets and paths that exist.

They are run, too, by scripts/strangers_path.py in a booted Debian; that needs root, and minutes. A block that is no
command is named in OUTPUT by its first words.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from edge_far import cli
from edge_far.errors import EdgeFarError

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
PAGES = ("install.md", "service.md")
BLOCK = re.compile(r"(?:^ {4}.*\n(?:\n(?= {4}))?)+", re.MULTILINE)
OUTPUT = ('{"text":', "Deferred:", "--collector.textfile.directory=/run/edgefar/metrics")
PLACES = {"$stage": "", "$opt": "/opt/edge-far", "$etc": "/etc/edge-far", "$units": "/etc/systemd/system"}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def text_of(page: str) -> str:
    return (ROOT / "docs" / "start" / page).read_text()


def lines_to_type() -> list[str]:
    """Return every line of the pages' blocks but of those in OUTPUT, without its comment."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(text_of(page)):
            if not block.strip().startswith(OUTPUT):
                found += [line.strip() for line in block.splitlines()]
    return [line.partition("  #")[0] for line in found if line and not line.startswith("#")]


def laid() -> str:
    """Return all that deploy/ says of places, its variables filled in."""
    text = "\n".join(path.read_text() for path in sorted(DEPLOY.iterdir()) if path.is_file())
    for name, place in PLACES.items():
        text = text.replace(name, place)
    return text


def is_a_unit(word: str) -> bool:
    return any((DEPLOY / f"{word}{kind}").is_file() for kind in ("", ".service"))


def check_install_sh(words: list[str]) -> None:
    usage = re.findall(r"^  (--[a-z]+) ", (DEPLOY / "install.sh").read_text(), re.MULTILINE)
    for word in words:
        assert not word.startswith("--") or word in [*usage, "--purge"], word


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    for word in words[1:]:
        for extra in re.findall(r"\[(\w+)\]", word):
            assert extra in EXTRAS, word
        if word.endswith(".txt"):
            assert (ROOT / word.removeprefix("edge-far/")).is_file(), word


def check(words: list[str]) -> None:
    """Check one command; raises AssertionError, or SystemExit for options that the parser does not take."""
    if words[0] == "sudo":
        words = words[1:]
    if "&&" in words:
        place = words.index("&&")
        assert words[:place] == ["cd", "deploy"]
        words = words[place + 1 :]
    program, rest = Path(words[0]).name, words[1:]
    if program == "edge-far":
        assert rest == ["--version"] or cli._build_parser(rest[0]).parse_args(rest)
    elif program == "install.sh":
        check_install_sh(rest)
    elif program in ("systemctl", "journalctl", "systemd-analyze"):
        named = [word.removeprefix("./") for word in rest if "edge-far" in word]
        assert named and all(map(is_a_unit, named)), words
    elif program == "make":
        targets = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{word}:", targets, re.MULTILINE) for word in rest), words
    elif program == "pip":
        check_pip(rest)
    elif program == "usermod":
        group = rest[rest.index("--groups") + 1]
        assert re.search(rf"^g {group} ", (DEPLOY / "edge-far.sysusers").read_text(), re.MULTILINE), group
    else:
        assert words[:3] == ["python3", "-m", "venv"], f"nobody checks {program}"


@pytest.mark.parametrize("line", lines_to_type())
def test_a_line_to_type_names_what_exists(line: str) -> None:
    check(shlex.split(line, comments=True))


@pytest.mark.parametrize(
    "line",
    [
        "edge-far status --states x",
        "sudo deploy/install.sh --profile auto --bundles x",
        "sudo systemctl start edge-fat",
        "make whele",
        "venv/bin/pip install './edge-far[devices]'",
        "venv/bin/pip install -r edge-far/deploy/packages.txt",
        "sudo usermod --append --groups edge-far-spools YOUR_USER",
        "rm -rf x",
    ],
)
def test_one_that_does_not_is_found(line: str) -> None:
    with pytest.raises((AssertionError, SystemExit, EdgeFarError)):
        check(shlex.split(line))


def test_paths_are_those_that_the_installer_lays() -> None:
    places = laid()
    pages = "".join(map(text_of, PAGES))
    named = set(re.findall(r"(?<![\w.])/(?:opt|etc|var|run|usr)/[\w./-]*[\w-]", pages))
    shown = {path for path in named if path.startswith("/run/edgefar/")}  # what the daemon shows there
    assert len(named) > 5 and {path for path in named - shown if path not in places} == set()
    daemon = "\n".join(path.read_text() for path in (ROOT / "edge_far").rglob("*.py"))
    for path in shown:
        assert all(re.search(rf"\b{re.escape(part)}\b", daemon) for part in Path(path).parts[3:]), path
