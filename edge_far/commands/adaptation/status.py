"""How periodic adaptation is on this device, why, and what to do about it: measured now, not remembered."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Annotated, Any

from edge_far.commands.profile_choice import profile_word
from edge_far.console import Console
from edge_far.daemon.report import status, status_text
from edge_far.daemon.state import DEFAULT_STATE, StateDirectory
from edge_far.json_file import Damaged, Within, decode, read_document

EXAMPLES = """examples:
  edge-far status
  edge-far status --state state --json
  edge-far status --check --json    # for a health check
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far status`."""
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="the daemon's (default: %(default)s)"
    )
    parser.add_argument("--profile", type=profile_word, help="device profile (default: the daemon's last)")
    parser.add_argument("--check", action="store_true", help="exit 69 where the device is broken; else, and without, 0")
    parser.add_argument("--sensors-root", type=Path, default=Path("/"), help=argparse.SUPPRESS)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Look at everything without changing anything."""
    from edge_far.errors import Unavailable

    document = looked(StateDirectory(options.state), options.profile, options.sensors_root)
    return {**document, "exit_code": Unavailable.exit_code if options.check and document["state"] == "broken" else 0}


def looked(state: StateDirectory, profile_source: str | None, sensors_root: Path) -> dict[str, Any]:
    """Return the status document of a state directory, measured now; raises InputMissing where no daemon has been."""
    from edge_far.daemon.notes import Notes
    from edge_far.daemon.releases import Releases
    from edge_far.daemon.store.examples import Store
    from edge_far.device.board.sensors import Sensors
    from edge_far.errors import EdgeFarError
    from edge_far.profile.document import load_profile

    state.must_exist()
    problems: list[str] = []
    settings = last_settings(state.status)
    profile = store = releases = None
    source = profile_source or settings.get("profile")
    if source:
        try:
            profile = load_profile(source)
        except EdgeFarError as error:
            problems.append(f"the profile cannot be used: {error}")
    if state.store.exists():
        try:
            store = Store(state.store, busy_timeout_s=5.0)
        except EdgeFarError as error:
            problems.append(f"the examples' store cannot be used: {error}")
    if state.model.is_dir():
        releases = Releases(state.model)
    readings = Sensors(sensors_root, disk=state.root).read()
    if "memory_limit_mib" in settings:  # the daemon's: this command runs in another control group
        readings = dataclasses.replace(readings, cgroup_limit_mib=settings["memory_limit_mib"])
    try:
        return status.build(
            state,
            store=store,
            releases=releases,
            notes=Notes(state.notes),
            profile=profile,
            readings=readings,
            settings=settings,
            running=state.running_pid() is not None,
            working=state.working_pid() is not None,
            problems=problems,
        )
    finally:
        if store is not None:
            store.close()
        state.give_to_owner()


def exit_code(document: dict[str, Any]) -> int:
    """Return 69 where the device is broken and that was asked."""
    return int(document["exit_code"])


def render(document: dict[str, Any]) -> str:
    """Return the note for people."""
    return status_text.render(document)


def last_settings(path: Path) -> dict[str, Any]:
    """Return what the daemon last said of its own settings; {} where it has not, or they are damaged."""
    try:
        document = read_document(path, dict[str, Any], half_pairs=True)
        daemon = decode(dict[str, Any], document.get("daemon"))
        settings: dict[str, Any] = decode(dict[str, Any], daemon.get("settings"))
        decode(str | None, settings.get("profile"))
        decode(str | None, settings.get("spool"))
        decode(tuple[str, ...] | None, settings.get("labels"))
        decode(Annotated[float, Within(0, 1e9)] | None, settings.get("memory_limit_mib"))
    except (OSError, Damaged):
        return {}
    return settings
