"""List, show or check device profiles, or say which one fits this board.

A profile says what a board can spare for training, and when: memory, threads, heat, power, hours. Built-in
ones are named (edge-far profiles list); your own is a YAML file, and `sample` prints one with every field
explained.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from edge_far.commands.arguments import check_root
from edge_far.console import Console
from edge_far.device.board.identity import identify
from edge_far.device.board.known_boards import nearest_profile, recognise
from edge_far.errors import Unavailable, UsageError
from edge_far.profile.document import Profile, list_profiles, load_profile, reference_yaml

EXAMPLES = """examples:
  edge-far profiles                              the built-in profiles, as a table
  edge-far profiles show rpi4-2gb                one profile as YAML, with every default filled in
  edge-far profiles sample > my-board.yaml       a file to start from, with every field explained
  edge-far profiles check my-board.yaml          OK, or every error of the file at once
  edge-far profiles detect                       the one for this board, and why; 69 where the board is not known
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge-far profiles`."""
    parser.add_argument(
        "action",
        nargs="?",
        choices=["list", "show", "check", "sample", "detect"],
        default="list",
        help="what to do (default: list)",
    )
    parser.add_argument("profile", nargs="?", metavar="NAME|FILE", help="show, check: a built-in name, or a .yaml file")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="detect: read the files of a system below DIR",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the action; return its document. Raises ConfigError for a profile with errors."""
    action, wanted = options.action, options.profile
    if action in ("list", "sample", "detect"):
        if wanted is not None:
            raise UsageError(
                f"'{action}' takes no profile",
                where="edge-far profiles",
                hint=f"edge-far profiles show {wanted}",
            )
        if action == "detect":
            return {"action": action, **_detected(options.root)}
        if action == "sample":
            return {"action": action, "yaml": reference_yaml()}
        return {"action": action, "profiles": [_document(profile) for profile in list_profiles()]}
    if wanted is None:
        raise UsageError(
            f"'{action}' needs a profile",
            where="edge-far profiles",
            hint=f"edge-far profiles {action} NAME|FILE",
        )
    profile = load_profile(wanted)
    if action == "check":
        return {"action": action, "profile": str(wanted), "ok": True}
    return {"action": action, "profile": _document(profile)}


def exit_code(document: dict[str, Any]) -> int:
    """Return 69 where a board was asked for, and is not known."""
    return Unavailable.exit_code if document["action"] == "detect" and document["profile"] is None else 0


def render(document: dict[str, Any]) -> str:
    """Return the document as a table, as YAML, or as one line; of a board that is known the profile first."""
    if document["action"] == "detect":
        return f"{document['profile'] or 'none'}  {document['why']}"
    if document["action"] == "list":
        return _table(document["profiles"])
    if document["action"] == "sample":
        return str(document["yaml"]).rstrip("\n")
    if document["action"] == "check":
        return f"{document['profile']}: OK"
    sections = dict(document["profile"])
    name = sections.pop("name")
    return f"# {name}\n" + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True).rstrip("\n")


def _detected(root: Path) -> dict[str, Any]:
    """Return which profile fits the machine whose files lie below `root`; RAM in MiB."""
    check_root(root)
    board = identify(root)
    match, near = recognise(board), nearest_profile(board)
    name = f"'{board.model}'" if board.model else f"no name ({board.processor})"
    why = f"no built-in profile is for this machine: it calls itself {name}"
    if match is None and board.is_arm and near is not None:
        why += f"; to start a profile of your own from: edge-far profiles show {near.name}"
    return {
        "profile": None if match is None else match.profile.name,
        "exact": match is not None and match.exact,
        "why": why if match is None else match.why,
        "model": board.model,
        "ram_mib": None if board.ram_mib is None else round(board.ram_mib),
        "sold_mib": board.sold_mib,
    }


def _document(profile: Profile) -> dict[str, Any]:
    return {"name": profile.name, **profile.as_document()}


def _table(profiles: list[dict[str, Any]]) -> str:
    rows = [("PROFILE", "BUDGET MiB", "RAM MiB", "THREADS", "FROZEN", "BOARD")]
    for profile in profiles:
        rows.append(
            (
                profile["name"],
                str(profile["memory"]["budget_mib"]),
                str(profile["board"]["ram_mib"] or "-"),
                str(profile["compute"]["threads"]),
                profile["compute"]["frozen_precision"],
                profile["board"]["description"] or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numbers = (1, 2, 3)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
