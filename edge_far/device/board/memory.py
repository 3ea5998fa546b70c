"""How much memory this process holds, and how much it may: resident set, cgroup limit, what the board has left."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_far.device.board.cgroups import Group, groups_of
from edge_far.device.board.kernel_files import read_text

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
_AVAILABLE = re.compile(r"^MemAvailable:\s*([0-9]{1,15}) kB$", re.MULTILINE)
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
    found = _AVAILABLE.search(read_text(root / "proc/meminfo") or "")
    return int(found[1]) / 1024 if found else None


def cgroup_limit_mib(root: Path = Path("/")) -> float | None:
    """Return the memory limit of this process's cgroup (v2 or v1) in MiB, or None when there is none."""
    limits = [limit for group in groups_of("memory", root) if (limit := _limit(group)) is not None]
    return min(limits, default=None)


def _limit(group: Group) -> float | None:
    text = group.text("memory.max" if group.version == 2 else "memory.limit_in_bytes") or ""
    if not re.fullmatch(r"[0-9]{1,20}", text):
        return None  # "max", or nothing to go by
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
