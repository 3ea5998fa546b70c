"""List the releases of this device, the newest first, and check every file of them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from edge_far.console import Console
from edge_far.daemon.state import DEFAULT_STATE, StateDirectory
from edge_far.tasks.figures import FIGURES, score_name

EXAMPLES = """examples:
  edge-far releases
  edge-far releases --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far releases`."""
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="the daemon's (default: %(default)s)"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Verify and list."""
    from edge_far.daemon.release_files import ReleaseDamaged
    from edge_far.daemon.releases import Releases
    from edge_far.errors import EdgeFarError

    state = StateDirectory(options.state)
    state.must_exist()
    releases = Releases(state.model)
    try:
        current = releases.current_id()
    except ReleaseDamaged as error:
        console.warn(str(error))
        current = None
    found = []
    for id in reversed(releases.ids()):
        entry: dict[str, Any] = {"id": id, "current": id == current, "problem": None}
        try:
            release = releases.verify(id)
            entry |= {
                "made_s": release.created_s,
                "replaces": release.replaces,
                "path": str(release.path),
                "facts": dict(release.facts),
            }
        except EdgeFarError as error:
            entry["problem"] = str(error)
        found.append(entry)
    state.give_to_owner()
    return {"current": current, "releases": found}


def render(document: dict[str, Any]) -> str:
    """Return one line a release."""
    lines = []
    for entry in document["releases"]:
        mark = "*" if entry["current"] else " "
        if entry["problem"]:
            lines.append(f"{mark} {entry['id']}  DAMAGED: {entry['problem']}")
            continue
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["made_s"]))
        held_out = entry["facts"].get("held_out") or {}
        score = _score(held_out) if held_out else ""
        kind = entry["facts"].get("kind") or ""
        lines.append(f"{mark} {entry['id']}  {made}  {kind:<8} {score:<16} replaces {entry['replaces'] or '-'}")
    return "\n".join(lines) or "no release yet"


def _score(held_out: dict[str, Any]) -> str:
    """Return what the gate measured: 97.1% of 120, or the figure of another task and its name."""
    name = score_name(held_out)
    value = held_out[f"candidate_{name}"]
    shown = f"{value:.1%}" if name == "accuracy" else f"{FIGURES[name].title} {FIGURES[name].shown(value)}"
    return f"{shown} of {held_out['examples']}"
