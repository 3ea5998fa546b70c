"""What a command does besides its result: files it opens for writing, memory it takes, time.

Python's audit events name every file that Python code opens, renames, makes or removes. What native libraries write
is not seen here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["WAITING", "TookTooLong", "peak_above", "time_limit", "written_files"]

# A machine that is shared gives a process a part of its time.
WAITING = 10
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Event -> which of its arguments is the path, and which the directory it is relative to (None: the working one).
CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.utime": ((0, 3),),
    "sqlite3.connect": ((0, None),),
}

_seen: list[set[str]] = []  # the innermost watcher's last
_installed: list[bool] = []


class TookTooLong(BaseException):
    """The time limit of a case is over; no handler of Exception stops it."""


@contextmanager
def written_files() -> Iterator[set[str]]:
    """Collect the absolute paths of all that Python code changes meanwhile."""
    if not _installed:
        sys.addaudithook(_hear)  # for ever: hooks cannot be removed
        _installed.append(True)
    paths: set[str] = set()
    _seen.append(paths)
    try:
        yield paths
    finally:
        _seen.pop()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong after so many seconds of processor time, or WAITING times as many of the clock's."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    limits = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, seconds * WAITING),
    }
    before = {number: signal.signal(number, ring) for number in limits}
    for timer, limit in limits.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _ in limits.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def peak_above() -> Iterator[list[float]]:
    """Yield a list that at the end holds how far the resident set rose above where it began, in MiB."""
    grown: list[float] = []
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status_mib("VmRSS")
    try:
        yield grown
    finally:
        grown.append(max(0.0, _status_mib("VmHWM") - before))


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _seen:
        return
    paths = _seen[-1]
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, (str, bytes, os.PathLike)) and isinstance(flags, int) and flags & WRITING:
            paths.add(_absolute(path, None))
    elif event in CHANGES:
        for place, folder in CHANGES[event]:
            path = arguments[place]
            if isinstance(path, (str, bytes, os.PathLike)):
                base = arguments[folder] if folder is not None and folder < len(arguments) else None
                paths.add(_absolute(path, base))


def _absolute(path: str | bytes | os.PathLike[Any], base: Any) -> str:
    text = os.fsdecode(path)
    if isinstance(base, int) and base >= 0 and not text.startswith("/"):
        text = f"{Path(f'/proc/self/fd/{base}').readlink()}/{text}"
    return os.path.normpath(Path.cwd() / text)
