"""Write docs/reference/commands.md from the parsers of the command line.

    python scripts/commands_reference.py

A test compares the page with what this writes (tests/test_commands_page.py).
"""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path

from edge_far import cli
from edge_far.commands.arguments import LARGEST, Number

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands.md"
BEGINNING = """# Commands

Every command with its options and their defaults, as `edge-far COMMAND --help` tells them. The page is written by
`scripts/commands_reference.py` from the parsers themselves; do not edit it. What a command prints with `--json`, and
its exit codes: [exit-codes-and-json.md](exit-codes-and-json.md).

Every command takes `--json` (one JSON document on stdout), `-q`, `--quiet` (no messages but warnings), `-v`,
`--verbose` (say more on stderr) and `-h`, `--help`.
"""
OF_ALL = {"help", "json", "quiet", "verbose"}
PLAIN = ("positional arguments", "options")  # argparse's own groups
# What a help says of the default: at its end, or in all of it.
SAID = re.compile(r" ?\(default: ([^()]*(?:\([^()]*\)[^()]*)*)\)$|^default: (.*)$")

VALUE = re.compile(r"%\(default\)[sdg]")  # the default alone, as argparse writes it


def page() -> str:
    """Return the page."""
    table = ["| Command | |", "|---|---|"]
    table += [f"| [{name}](#edge-far-{name}) | {_cell(words)} |" for name, (_, words) in cli.COMMANDS.items()]
    return "\n".join([BEGINNING, *table, *(_chapter(name) for name in cli.COMMANDS)]) + "\n"


def _chapter(name: str) -> str:
    parser = _parser(name)
    lines = ["", f"## edge-far {name}", "", _prose(parser.description or ""), "", *_code(_usage(parser)), ""]
    plain = [action for group in parser._action_groups if group.title in PLAIN for action in group._group_actions]
    own = [(group.title or "", group._group_actions) for group in parser._action_groups if group.title not in PLAIN]
    for title, actions in [("", plain), *own]:
        rows = [_row(action) for action in actions if _is_told(action)]
        if rows:
            lines += [f"**{title[:1].upper()}{title[1:]}**", ""] if title else []
            lines += ["| | | Default |", "|---|---|---|", *rows, ""]
    examples = (parser.epilog or "").partition("\n")[2].rstrip()
    return "\n".join([*lines, *_code(inspect.cleandoc(examples))])


def _parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of one command; its program's name is `edge-far NAME`."""
    for action in cli._build_parser(name)._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: argparse.ArgumentParser = action.choices[name]
            return found
    raise LookupError(name)


def _is_told(action: argparse.Action) -> bool:
    return action.dest not in OF_ALL and action.help != argparse.SUPPRESS


def _usage(parser: argparse.ArgumentParser) -> str:
    """Return the command with what it needs; the rest is in the table. Not argparse's, which differs by version."""
    words = [parser.prog]
    for action in filter(_is_told, parser._actions):
        if not action.option_strings:
            words.append(f"[{_value(action)}]" if action.nargs in ("?", "*") else _value(action))
        elif action.required:
            words.append(f"{action.option_strings[-1]} {_value(action)}")
    return " ".join([*words, "[options]"])


def _value(action: argparse.Action) -> str:
    """Return what stands for an argument's value: FILE, or the choices."""
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    elif isinstance(action.metavar, str):
        value = action.metavar
    else:
        value = action.dest.upper()
    many = {"*": f"{value} ...", "+": f"{value} ..."}
    return many.get(str(action.nargs), value)


def _row(action: argparse.Action) -> str:
    takes = action.nargs != 0
    if action.option_strings:
        shown = ", ".join(f"`{word}`" for word in action.option_strings)
        if takes:
            shown = f"`{action.option_strings[-1]} {_value(action)}`"
            shown = ", ".join([*(f"`{word}`" for word in action.option_strings[:-1]), shown])
    else:
        shown = f"`{_value(action)}`"
    said = SAID.sub("", (action.help or "") % vars(action)) + _bounds(action)
    return f"| {_cell(shown)} | {_cell(said)} | {_default(action)} |"


def _bounds(action: argparse.Action) -> str:
    """Return the bounds of a number, where it has one above."""
    if not isinstance(action, Number) or action.within.high >= LARGEST:
        return ""
    ends = (action.within.low, action.within.high)
    low, high = (f"{bound:g}" if isinstance(bound, float) else str(bound) for bound in ends)
    return f" ({low} to {high}{action.unit})"


def _default(action: argparse.Action) -> str:
    """Return what holds where an option is not given: its value, or what the help says of it."""
    if action.required:
        return "needed"
    told = SAID.search(action.help or "")
    words = (told[1] or told[2]) if told else "%(default)s"
    if not VALUE.fullmatch(words):
        return _cell(words % vars(action))
    if isinstance(action.default, bool) or not isinstance(action.default, str | int | float | Path):
        return ""
    return f"`{_cell(words % vars(action))}`" if str(action.default) else ""


def _cell(text: str) -> str:
    """Return a text for a cell of a table, on one line."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|")


def _prose(text: str) -> str:
    return inspect.cleandoc(text)


def _code(text: str) -> list[str]:
    return ["```text", text, "```"]


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
