"""A memory control group made by hand, version 1 or 2; needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.daemon.field import environment, wait_for

__all__ = ["LIMIT_MIB", "hog", "inside", "memory_group"]

LIMIT_MIB = 100
HOG = "import time; x = bytearray({size} << 20); x[::4096] = b'x' * len(x[::4096]); time.sleep(120)"


@contextmanager
def memory_group() -> Iterator[Path | None]:
    """Yield a group with a limit of LIMIT_MIB, or None where none can be made."""
    folder = _make_group()
    yield folder
    if folder is not None:
        wait_for(lambda: not (folder / "cgroup.procs").read_text(), 10)
        folder.rmdir()


def _make_group() -> Path | None:
    for top, name in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")):
        folder = top / f"edge-far-test-{os.getpid()}"
        with suppress(OSError):
            folder.mkdir()
            (folder / name).write_text(str(LIMIT_MIB << 20))
            return folder
    return None


def inside(group: Path, command: list[str]) -> subprocess.Popen[str]:
    """Start a command in the group."""
    script = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *command],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()},
    )


def hog(group: Path, mib: int) -> subprocess.Popen[str]:
    """Start a process in the group that takes memory and keeps it."""
    return inside(group, [sys.executable, "-c", HOG.format(size=mib)])
