"""Files in memory in the place of this process's streams, for tests that run a command in this process."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def streams_in_memory(stdin: bytes) -> Iterator[tuple[int, int]]:
    """Put files in memory behind stdin, stdout and stderr, the descriptors too, for native code writes to those.

    Yields the descriptors of what stdout and stderr take; stdin holds `stdin`.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in range(3)]
    objects = sys.stdin, sys.stdout, sys.stderr
    source, out, err = (os.memfd_create(name) for name in ("in", "out", "err"))
    os.write(source, stdin)
    os.lseek(source, 0, os.SEEK_SET)
    for number, descriptor in enumerate((source, out, err)):
        os.dup2(descriptor, number)
    os.close(source)
    sys.stdin = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8", errors="surrogateescape"
    )
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    try:
        yield out, err
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdin, sys.stdout, sys.stderr = objects
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)


def content_of(descriptor: int) -> str:
    """Return what was written to one of the two, and close it."""
    size = os.fstat(descriptor).st_size
    data = os.pread(descriptor, size, 0)
    os.close(descriptor)
    return data.decode("utf-8", "backslashreplace")
