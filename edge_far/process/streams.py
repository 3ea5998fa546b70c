"""The three streams a process is given, made safe: a message that cannot be shown is dropped, a result never is.

A stream may be closed, on a full disk, a terminal that was hung up, a pipe that nobody reads any more, or limited to
ASCII. Training must not end for that. Refuses to know what is said.
"""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, Literal, TextIO

__all__ = ["make_streams_safe"]


def make_streams_safe() -> None:
    """Make stdin, stdout and stderr usable; call it first, before a file is opened.

    A closed descriptor is opened on /dev/null: else the next file would take its number, and messages would land in it.
    stderr drops what it cannot show. stdout takes all of a text or raises OSError, and keeps nothing back for the
    interpreter's last flush. Characters that an encoding lacks are written as escapes. Streams that a program put in
    the place of the process's own are left alone.
    """
    for descriptor in range(3):
        _occupy(descriptor)
    if sys.stdin is None:
        sys.stdin = _nowhere("r")
    sys.stdout = _safe(sys.stdout, sys.__stdout__, 1, _Whole)
    sys.stderr = _safe(sys.stderr, sys.__stderr__, 2, _Dropping)


class _Whole(io.FileIO):
    """Writes all of it or raises; waits for a reader where the descriptor does not block."""

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        total = len(rest)
        while rest:
            written = super().write(rest)
            if written is None:
                select.select([], [self], [])
            rest = rest[written or 0 :]
        return total


class _Dropping(io.FileIO):
    """Writes what can be written now, and says that all was."""

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        total = len(rest)
        with suppress(OSError):
            while rest and (written := super().write(rest)):
                rest = rest[written:]
        return total


def _safe(stream: TextIO | None, original: TextIO | None, descriptor: int, raw: type[io.FileIO]) -> TextIO:
    if stream is None:
        return _nowhere("w")
    if stream is not original:
        return stream
    # Without a buffer: what cannot be written now would fail again, at the interpreter's end.
    file: Any = raw(descriptor, "wb", closefd=False)
    return io.TextIOWrapper(file, stream.encoding, "backslashreplace", line_buffering=True, write_through=True)


def _nowhere(mode: Literal["r", "w"]) -> TextIO:
    return open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: PTH123


def _occupy(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        os.dup2(opened, descriptor)  # children inherit it
        if opened != descriptor:
            os.close(opened)
        else:
            os.set_inheritable(descriptor, True)
