"""How much memory this process holds, and how much it may: resident set, cgroup limit, what the board has left."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "MIB",
    "ResidentSet",
    "available_mib",
    "cgroup_limit_mib",
    "release_free_memory",
    "resident_set",
    "use_one_heap",
]

MIB = float(1 << 20)
_UNLIMITED_MIB = 1 << 40
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h


@dataclass(frozen=True, slots=True)
class ResidentSet:
    """The process's resident memory now and at its highest (VmRSS, VmHWM), in MiB."""

    now_mib: float
    peak_mib: float


def resident_set() -> ResidentSet:
    """Read the resident set of this process from /proc/self/status."""
    now = peak = 0.0
    with Path("/proc/self/status").open() as file:
        for line in file:
            if line.startswith("VmRSS:"):
                now = int(line.split()[1]) / 1024
            elif line.startswith("VmHWM:"):
                peak = int(line.split()[1]) / 1024
    return ResidentSet(now, peak)


def available_mib(root: Path = Path("/")) -> float | None:
    """Return MemAvailable of the machine in MiB, or None where it cannot be read."""
    try:
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        pass
    return None


def cgroup_limit_mib(root: Path = Path("/")) -> float | None:
    """Return the memory limit of this process's cgroup (v2 or v1) in MiB, or None when there is none."""
    limits = [limit for path in _limit_files(root) if (limit := _read_limit(path)) is not None]
    return min(limits, default=None)


def _limit_files(root: Path) -> list[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    files: list[Path] = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        relative = name.lstrip("/")
        if controllers == "":
            base, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / relative
        files += [parent / file for parent in (group, *group.parents) if parent.is_relative_to(base)]
    return files


def _read_limit(path: Path) -> float | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    if not text.isdigit():
        return None  # "max"
    limit = int(text) / MIB
    return limit if limit < _UNLIMITED_MIB / 2 else None


def use_one_heap() -> None:
    """Make the C library serve every allocation from one contiguous heap that it keeps (glibc; else nothing happens).

    Returning each large block to the system, a batch's dropout masks say, costs page faults every step. Activations
    have an arena of their own (arena.py).
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 1 << 30), (_M_ARENA_MAX, 1)):
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        pass


def release_free_memory() -> None:
    """Give freed heap pages back to the system (glibc; elsewhere nothing happens)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
