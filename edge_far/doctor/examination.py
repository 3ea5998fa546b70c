"""The whole examination: who is examined, then topic after topic, in the order in which a person would look."""

from __future__ import annotations

import time
from pathlib import Path

from edge_far.daemon.state import DEFAULT_STATE
from edge_far.device.board.identity import identify
from edge_far.device.board.known_boards import recognise
from edge_far.doctor.disks import examine_disks
from edge_far.doctor.finding import Finding, Subject
from edge_far.doctor.hardware import examine_hardware
from edge_far.doctor.heat_and_power import examine_heat_and_power
from edge_far.doctor.kernel_settings import examine_kernel
from edge_far.doctor.service import examine_service
from edge_far.doctor.software import examine_software
from edge_far.process.privacy import cache_directory

__all__ = ["examine", "subject_below"]

# The service's cache (CacheDirectory=), for a tree of files: whose user's cache else would be meant?
SERVICE_CACHE = Path("var/cache/private/edge-far")


def subject_below(root: Path, *, state: Path = DEFAULT_STATE, now_s: float | None = None) -> Subject:
    """Return who is examined: the machine whose files lie below `root`; `state` is as that machine names it.

    `now_s` is the time by its clock: without it, this machine's for this machine, and none for a tree of files.
    """
    root = root.resolve()
    board = identify(root)
    here = root == Path("/")
    return Subject(
        root=root,
        now_s=time.time() if now_s is None and here else now_s,
        board=board,
        match=recognise(board),
        state=state.absolute() if here else root / state.relative_to(state.anchor),
        cache=cache_directory() if here else root / SERVICE_CACHE,
    )


def examine(subject: Subject) -> list[Finding]:
    """Return every finding; each topic is there once, whatever could be read."""
    return [
        *examine_hardware(subject),
        *examine_software(subject),
        *examine_kernel(subject),
        *examine_heat_and_power(subject),
        *examine_disks(subject),
        *examine_service(subject),
    ]
