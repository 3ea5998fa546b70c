"""docs/howto/troubleshooting.md quotes messages that the source has, and tells lines that the command line takes."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from edge_far import cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^### `(.*)`$", TEXT, re.MULTILINE)
LINES = re.findall(r"^ {4}(?:sudo )?(edge-far .*?)(?: +#.*)?$", TEXT, re.MULTILINE)
VALUE = "\0"  # where a message has a value


@cache
def texts() -> tuple[str, ...]:
    """Return every text of the source, each value in it as VALUE."""
    found = []
    for path in sorted((ROOT / "edge_far").rglob("*.py")):
        tree = ast.parse(path.read_text())
        remarks = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if id(node) in remarks:  # a docstring
                continue
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else VALUE for part in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def fragments(message: str) -> list[list[str]]:
    """Return a message's pieces between `...`, those of the hint in brackets apart."""
    told, _, hint = message.partition(" (free ")
    parts = [told, f"free {hint.removesuffix(')')}"] if hint else [told]
    return [[piece for piece in part.split("...") if piece.strip(" :,()")] for part in parts]


def test_there_are_many_and_each_is_there_once() -> None:
    assert len(MESSAGES) == len(set(MESSAGES)) == TEXT.count("\n### ") >= 20


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_that_is_quoted_is_one_of_the_sources(message: str) -> None:
    for pieces in fragments(message):
        assert pieces and max(map(len, pieces)) >= 9
        wanted = re.compile(".*".join(re.escape(piece.strip(" ")) for piece in pieces), re.DOTALL)
        assert [text for text in texts() if wanted.search(text)], pieces


@pytest.mark.parametrize("line", sorted(set(LINES)))
def test_a_line_to_type_is_one_that_the_parser_takes(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])[1:]
    if words == ["--version"]:
        return
    options = cli._build_parser(words[0]).parse_args(words)
    assert options.command == words[0]
