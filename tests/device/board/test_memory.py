"""Readings of /proc and the cgroup file systems, from made-up roots and from this machine."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_far.device.board.memory import (
    available_mib,
    cgroup_limit_mib,
    release_free_memory,
    resident_set,
    use_one_heap,
)


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_resident_set_of_this_process() -> None:
    before = resident_set()
    assert 5 < before.now_mib <= before.peak_mib
    # A mapping of its own: the heap of this process may have 64 MiB to spare from earlier tests.
    with mmap.mmap(-1, 64 << 20) as block:
        touched = np.frombuffer(block, np.uint8)
        touched[:] = 1
        after = resident_set()
        del touched
    assert 60 < after.now_mib - before.now_mib < 70
    assert resident_set().peak_mib > after.now_mib - 5, "the kernel counts in batches"


def test_available(tmp_path: Path) -> None:
    assert available_mib(tmp_path) is None
    put(tmp_path, "proc/meminfo", "MemTotal:  512000 kB\nMemAvailable:   65536 kB\n")
    assert available_mib(tmp_path) == 64
    put(tmp_path, "proc/meminfo", "MemAvailable:   much\n")
    assert available_mib(tmp_path) is None
    assert (available_mib() or 0) > 0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/a/b\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "104857600\n"}, 100),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "209715200\n",
                "sys/fs/cgroup/a/memory.max": "104857600",
            },
            100,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:memory,hugetlb:/a\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "52428800",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            50,
        ),
    ],
)
def test_cgroup_limit(files: dict[str, str], expected: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        put(tmp_path, name, text)
    assert cgroup_limit_mib(tmp_path) == expected


def test_one_heap_keeps_what_it_had_until_asked() -> None:
    program = """
from edge_far.device.board.memory import release_free_memory, resident_set, use_one_heap
import numpy as np
use_one_heap()
before = resident_set().now_mib
block = np.ones(4 << 20)
del block
kept = resident_set().now_mib - before
release_free_memory()
print(kept, resident_set().now_mib - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, released = map(float, done.stdout.split())
    assert kept > 30 > 5 > released


def test_where_there_is_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise OSError("no such library")

    monkeypatch.setattr("ctypes.CDLL", missing)
    use_one_heap()
    release_free_memory()
