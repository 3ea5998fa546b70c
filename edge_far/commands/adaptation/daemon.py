"""Adapt the model to this device's own data: read the spool, and when conditions allow train, compare and release.

With --once, the timer's job, it ends after one look (exit 0: a cycle ended; 75: deferred, see 'edge-far status');
without, it looks every few minutes until it is asked to end, and leaves the device to a fleet's round in between.
SIGTERM leaves a checkpoint and ends within 10 seconds (exit 75), SIGHUP loads the profile anew.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from edge_far.commands.arguments import Number
from edge_far.commands.service_places import add_place_arguments, places_of
from edge_far.console import Console
from edge_far.daemon.state import DEFAULT_STATE
from edge_far.errors import Deferred
from edge_far.json_file import Within

EXAMPLES = """examples:
  edge-far daemon --once --state state --profile rpi4-2gb --bundle bundle
  edge-far daemon --state /var/lib/edge-far --spool /var/spool/edge-far --profile profile.yaml --bundle bundle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far daemon`."""
    parser.add_argument("--once", action="store_true", help="look once, run a cycle if conditions allow, and end")
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="examples and releases (default: %(default)s)"
    )
    parser.add_argument("--spool", type=Path, metavar="DIR", help="where examples arrive (default: STATE/spool)")
    add_place_arguments(parser)
    parser.add_argument(
        "--replay",
        type=Path,
        default=os.environ.get("EDGE_FAR_REPLAY"),
        metavar="FILE",
        help="the host's samples, for a profile with adaptation.use_replay (default: EDGE_FAR_REPLAY)",
    )
    parser.add_argument(
        "--base",
        type=Path,
        default=os.environ.get("EDGE_FAR_BASE"),
        metavar="FILE",
        help="samples that the bundle was not trained on, to measure forgetting on; without, half of --replay does "
        "(default: EDGE_FAR_BASE)",
    )
    parser.add_argument(
        "--interval-minutes",
        action=Number,
        type=float,
        within=Within(0.001, 1440),
        default=10.0,
        metavar="M",
        help="without --once (default: %(default)s)",
    )
    parser.add_argument("--sensors-root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--stall-seconds", action=Number, type=float, within=Within(0.1, 86_400), help=argparse.SUPPRESS
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the daemon; the document says what the last look came to."""
    from edge_far.daemon.service import ServiceSettings, keep_looking, running_service
    from edge_far.process.failures import as_error
    from edge_far.process.termination import Signals

    settings = ServiceSettings(
        places=places_of(options),
        replay=Path(options.replay) if options.replay else None,
        base=Path(options.base) if options.base else None,
        stall_s=options.stall_seconds,
    )
    if not options.once:
        with Signals() as signals:
            keep_looking(settings, signals, console, options.interval_minutes * 60)
        raise Deferred("asked to stop; the next start goes on from here")
    with Signals() as signals, running_service(settings, signals, console) as service:
        try:
            outcome = service.tick()
        except Deferred:
            raise
        except Exception as error:
            told = as_error(error, ["daemon"])
            service.failed(told)
            raise told from error
        service.succeeded()
    row = outcome.cycle
    return {
        "deferred": outcome.deferred,
        "spool": dict(vars(outcome.ingested)),
        "cycle": None
        if row is None
        else {"id": row.id, "outcome": row.outcome, "candidate": row.candidate, "details": row.details},
    }


def exit_code(document: dict[str, Any]) -> int:
    """Return 75 where no cycle ended."""
    return Deferred.exit_code if document["deferred"] else 0


def render(document: dict[str, Any]) -> str:
    """Return one line."""
    if document["deferred"]:
        return f"deferred: {document['deferred']}"
    cycle = document["cycle"]
    return f"cycle {cycle['id']} {cycle['outcome']}: {cycle['details'].get('reason', '')}"
