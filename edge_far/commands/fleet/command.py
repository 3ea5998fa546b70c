"""Rounds of learners over many devices: serve this device's desk, or see how the fleet is.

work     take what lies on the desk, train where the profile's conditions allow, and answer; with --once one look
         (exit 0: answered or nothing there), without until SIGTERM or Ctrl-C (0; 75 in the midst of a round)
status   of this device: desk, offer; with --rounds of a server: every finished round
doctor   is everything there that a round needs; a line a check, exit 69 where one fails
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.service_places import add_place_arguments
from edge_far.console import Console
from edge_far.daemon.state import DEFAULT_STATE
from edge_far.errors import Unavailable

EXAMPLES = """examples:
  edge-far fleet work --once --state state --profile rpi4-2gb --bundle bundle --desk desk
  edge-far fleet status
  sudo edge-far fleet status --rounds /var/lib/edge-far-fleet-server/rounds-of-home
  edge-far fleet doctor --server fleet.example:8000 --root-certificates ca.crt --key node.key
"""

DESK = Path("/var/spool/edge-far-fleet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far fleet`."""
    parser.add_argument("what", choices=("work", "status", "doctor"))
    parser.add_argument("--once", action="store_true", help="work: look once, and end")
    parser.add_argument(
        "--desk", type=Path, default=DESK, metavar="DIR", help="where orders and answers lie (default: %(default)s)"
    )
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="the daemon's (default: %(default)s)"
    )
    parser.add_argument("--spool", type=Path, metavar="DIR", help="the daemon's (default: STATE/spool)")
    add_place_arguments(parser)
    parser.add_argument("--rounds", type=Path, metavar="DIR", help="status: the directory of a server's rounds")
    look = parser.add_argument_group("doctor")
    look.add_argument("--server", metavar="HOST:PORT", help="shake hands with this SuperLink")
    look.add_argument("--root-certificates", type=Path, metavar="FILE", help="whom to trust (PEM)")
    look.add_argument("--key", type=Path, metavar="FILE", help="this SuperNode's private key")
    parser.add_argument("--sensors-root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Do what was asked."""
    if options.what == "work":
        from edge_far.commands.fleet.work import work

        return {"what": "work", **work(options, console)}
    if options.what == "status":
        from edge_far.commands.fleet.view import view

        return {"what": "status", **view(options)}
    from edge_far.commands.fleet.doctor import examined

    return {"what": "doctor", **examined(options)}


def exit_code(document: dict[str, Any]) -> int:
    """Return 69 where the doctor found something missing."""
    failed = document["what"] == "doctor" and not all(check["ok"] for check in document["checks"])
    return Unavailable.exit_code if failed else 0


def render(document: dict[str, Any]) -> str:
    """Return it for people."""
    if document["what"] == "work":
        if not document["answers"]:
            return "nothing lay on the desk"
        return "\n".join(" ".join(filter(None, (a["outcome"], a["reason"]))) for a in document["answers"])
    if document["what"] == "status":
        from edge_far.commands.fleet.view import shown

        return shown(document)
    return "\n".join(f"{'ok     ' if c['ok'] else 'missing'}  {c['text']}" for c in document["checks"])
