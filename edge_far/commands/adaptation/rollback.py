"""Go back to the release that the current one replaced, or to a named one; the application sees it at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.console import Console
from edge_far.daemon.state import DEFAULT_STATE, StateDirectory

EXAMPLES = """examples:
  edge-far rollback
  edge-far rollback --to 000000-1a2b3c4d
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far rollback`."""
    parser.add_argument("--to", metavar="ID", help="a release of 'edge-far releases' (default: the one before)")
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="the daemon's (default: %(default)s)"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Switch `current`; a cycle under way notices and discards its candidate."""
    from edge_far.daemon.release_files import ReleaseDamaged
    from edge_far.daemon.releases import Releases

    state = StateDirectory(options.state)
    state.must_exist()
    releases = Releases(state.model)
    try:
        before = releases.current_id()
    except ReleaseDamaged:
        before = None
    try:
        release = releases.rollback() if options.to is None else releases.switch(options.to, expected=before)
    finally:
        state.give_to_owner()
    return {"before": before, "current": release.id, "path": str(release.path)}


def render(document: dict[str, Any]) -> str:
    """Return what is current now."""
    return f"{document['current']} is the current release; it was {document['before'] or 'none'}"
