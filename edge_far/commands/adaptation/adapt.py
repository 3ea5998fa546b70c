"""Ask the service for a cycle now instead of at its next look; the profile's conditions are told, not skipped.

The exit code is 0 where a cycle has begun or is under way, 75 where it has to wait (the reason is told), 69 where no
service runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from edge_far.commands.adaptation.status import last_settings, looked
from edge_far.commands.arguments import Number
from edge_far.commands.profile_choice import profile_word
from edge_far.console import Console
from edge_far.daemon.intake.requests import LookAnswer, ask, read_answer, take_back
from edge_far.daemon.intake.spool import DEFAULT_SPOOL
from edge_far.daemon.state import DEFAULT_STATE, StateDirectory
from edge_far.errors import Deferred, Unavailable
from edge_far.json_file import Within

EXAMPLES = """examples:
  edge-far adapt
  edge-far adapt --state state --json
"""

POLL_S = 0.1
SYSTEMD = Path("/run/systemd/system")  # there where systemd runs; edge-far.path then starts the service for a request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far adapt`."""
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="the daemon's (default: %(default)s)"
    )
    parser.add_argument("--spool", type=Path, metavar="DIR", help="the daemon's (default: what it last said)")
    parser.add_argument("--profile", type=profile_word, help="device profile (default: the daemon's last)")
    parser.add_argument(
        "--wait-seconds",
        action=Number,
        type=float,
        within=Within(0, 3600),
        default=20.0,
        metavar="S",
        help="for the service's answer (default: %(default)s)",
    )
    parser.add_argument("--sensors-root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Ask, and wait for the answer; Unavailable (69) where no service takes the request."""
    state = StateDirectory(options.state)
    now = looked(state, options.profile, options.sensors_root)
    if now["state"] == "training":
        return _document(now, asked=False, cycle=now["cycle_under_way"]["id"])
    spool = options.spool or Path(last_settings(state.status).get("spool") or state.spool)
    if not _may_answer(state, spool):
        raise _no_service(state)
    id = ask(spool)
    console.detail(f"asked in {spool}")
    answer = _awaited(state, id, options.wait_seconds)
    if answer is None and state.running_pid() is None and take_back(spool, id):
        raise _no_service(state)
    now = looked(state, options.profile, options.sensors_root)
    if answer is None:
        late = f"no answer within {options.wait_seconds:g} s: the service is still busy"
        return _document(now, asked=True, deferred=late)
    return _document(now, asked=True, cycle=answer.cycle, deferred=answer.deferred)


def _document(
    now: dict[str, Any], *, asked: bool, cycle: int | None = None, deferred: str | None = None
) -> dict[str, Any]:
    return {
        "asked": asked,
        "cycle": cycle,
        "deferred": deferred,
        "summary": now["summary"],
        "conditions": now["conditions"],
    }


def _may_answer(state: StateDirectory, spool: Path) -> bool:
    """Return whether a daemon runs, or systemd would start one for a request."""
    return state.running_pid() is not None or (spool == DEFAULT_SPOOL and SYSTEMD.is_dir())


def _awaited(state: StateDirectory, id: str, seconds: float) -> LookAnswer | None:
    ends = time.monotonic() + seconds
    while (answer := read_answer(state.answer, id)) is None and time.monotonic() < ends:
        time.sleep(POLL_S)
    return answer


def _no_service(state: StateDirectory) -> Unavailable:
    hint = "'sudo systemctl start edge-far' runs a cycle now, or 'edge-far daemon --once'"
    return Unavailable("no service runs here that could adapt", where=str(state.root), hint=hint)


def exit_code(document: dict[str, Any]) -> int:
    """Return 75 where the cycle has to wait."""
    return Deferred.exit_code if document["deferred"] else 0


def render(document: dict[str, Any]) -> str:
    """Return what came of it."""
    if document["deferred"]:
        return f"deferred: {document['deferred']}"
    begun = "has begun" if document["asked"] else "is under way already"
    return f"cycle {document['cycle']} {begun}; 'edge-far status' tells how it goes"
