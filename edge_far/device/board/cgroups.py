"""Where the limits of this process's control group lie: its own files and those of all groups above it.

A limit of any of them counts, so a reader takes the tightest. Versions 1 and 2 of control groups, and both at once.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge_far.device.board.kernel_files import read_bytes, read_text

__all__ = ["Group", "groups_of"]

MOUNTS = "sys/fs/cgroup"


class Group:
    """The directory of one control group, and the version of its controller (1 or 2)."""

    def __init__(self, directory: Path, version: int) -> None:
        self.directory = directory
        self.version = version

    def text(self, file: str) -> str | None:
        """Return what one of its files says, None where that is unknown."""
        return read_text(self.directory / file)


def groups_of(controller: str, root: Path) -> list[Group]:
    """Return the groups that limit this process by `controller` (memory, cpu), the innermost first."""
    groups: list[Group] = []
    for line in os.fsdecode(read_bytes(root / "proc/self/cgroup") or b"").split("\n"):
        _, _, rest = line.partition(":")
        controllers, colon, name = rest.partition(":")
        if not colon:
            continue
        if controllers == "":
            mounts, version = ["", "unified"], 2
        elif controller in controllers.split(","):
            mounts, version = list(dict.fromkeys((controllers, controller))), 1
        else:
            continue
        for mount in mounts:
            base = root / MOUNTS / mount
            groups += [Group(directory, version) for directory in _upwards(base, name)]
    return groups


def _upwards(base: Path, name: str) -> list[Path]:
    """Return the group's directory and those above it, down to the mount; a name that leads out of it is cut."""
    parts = re.sub(r" \(deleted\)$", "", name).strip("/").split("/")
    if ".." in parts:  # the group lies outside this process's namespace: only what is mounted can be read
        parts = []
    parts = [part for part in parts if part not in ("", ".")]
    own = base.joinpath(*parts)
    return [own, *own.parents[: len(parts)]]
