"""In which order the files that wait in a spool arrived: a later one corrects an earlier one.

The date of a file's content (mtime) says little: a program may set it, and a copy brings it along. What counts:

- of a file of `edge-far add`, the number in its name, which is above that of all files that waited then;
- of another program's, when it appeared under its name (ctime), which the kernel notes by its own clock;
- at the same instant, the number of the file (inode), which new files are given in ascending order.

Where the clock was set back meanwhile, a file from the future of today's clock arrived before that; one with a past
date may have come before or after. So that is told.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from edge_far.daemon.intake.spool import number_of

__all__ = ["Waiting", "dated_before", "in_order", "waiting_in"]

SECOND_NS = 10**9


@dataclass(frozen=True)
class Waiting:
    """One file: its name, when it appeared under it (ns since 1970, by the clock of then), and its inode."""

    name: str
    appeared_ns: int
    inode: int = 0

    @property
    def arrived_ns(self) -> int:
        """When it arrived, as a number to compare."""
        number = number_of(self.name)
        return self.appeared_ns if number is None else number

    @property
    def raised(self) -> bool:
        """Whether `add` had to raise its number above its clock: the clock had been set back."""
        return self.arrived_ns > self.appeared_ns + SECOND_NS


def waiting_in(directory: int, names: Iterable[str]) -> list[Waiting]:
    """Return those of the names in an open directory that are still there and no directories."""
    found = []
    for name in names:
        with suppress(FileNotFoundError):  # taken back by the application
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                found.append(Waiting(name, status.st_ctime_ns, status.st_ino))
    return found


def in_order(files: Iterable[Waiting], now_ns: int) -> list[Waiting]:
    """Return the files in the order of their arrival, the first one first; `now_ns` is what the clock says now."""
    arrived = sorted(files, key=lambda file: (file.arrived_ns, file.inode, file.name))
    if not any(_from_the_future(file, now_ns) for file in arrived):
        return arrived
    before = [file for file in arrived if _came_before_the_jump(file, now_ns)]
    after = [file for file in arrived if not _came_before_the_jump(file, now_ns)]
    return before + sorted(after, key=lambda file: (file.appeared_ns, file.inode, file.name))


def dated_before(files: Sequence[Waiting], looked_ns: int | None, now_ns: int) -> Waiting | None:
    """Return a file that shows that the clock was set back while files arrived, None where their order is certain.

    `looked_ns` is when the spool was last looked into: what waits now arrived later.
    """
    if len(files) < 2:
        return None
    found = [f for f in files if looked_ns is not None and f.appeared_ns < looked_ns - SECOND_NS]
    if not found and any(_from_the_future(file, now_ns) for file in files):
        found = [file for file in files if not _from_the_future(file, now_ns)] or list(files)
    return min(found, key=lambda file: file.appeared_ns, default=None)


def _from_the_future(file: Waiting, now_ns: int) -> bool:
    return max(file.appeared_ns, file.arrived_ns) > now_ns + SECOND_NS


def _came_before_the_jump(file: Waiting, now_ns: int) -> bool:
    """Return whether a file arrived before the clock was set back to what it says now.

    `add` sees what waits: had a file from the future been there, it would have raised its number above that.
    """
    return _from_the_future(file, now_ns) if number_of(file.name) is None else not file.raised
