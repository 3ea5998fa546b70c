"""Which processor this is, and how much of it this process may use: its cores, and the quota of its control groups.

A container or a service may be given half a core. More threads than the quota allows only wait for one another: with
half a core, two threads took 2.3 times as long as one. Standard library only.
"""

from __future__ import annotations

import math
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from edge_far.device.board.cgroups import Group, groups_of
from edge_far.device.board.kernel_files import read_text

__all__ = ["CpuShare", "cpu_name", "cpu_quota", "cpu_share"]

_QUOTA_V2 = re.compile(r"([0-9]{1,18}) ([0-9]{1,18})")
_NUMBER = re.compile(r"[0-9]{1,18}")
# What a name may hold and still name no processor: its speed, or the emulator that hides it.
_SAYS_NOTHING = re.compile(r"@.*|\b(?:QEMU|KVM|Virtual)\b.*|x86_64|aarch64|armv[0-9]\w*", re.IGNORECASE)
# The fields that say which processor it is where its name does not: those of x86, then those of Arm.
_IDENTITY = {
    "cpu family": "family",
    "model": "model",
    "stepping": "stepping",
    "CPU implementer": "implementer",
    "CPU part": "part",
}


@dataclass(frozen=True)
class CpuShare:
    """The cores this process may run on (affinity and cpuset) of all that the machine has; `quota` in cores or None."""

    cores: tuple[int, ...]
    machine_cores: int
    quota: float | None = None

    @property
    def most_threads(self) -> int:
        """The number of threads that can run at the same time, at least 1."""
        whole = len(self.cores) if self.quota is None else min(len(self.cores), math.ceil(self.quota))
        return max(1, whole)

    @property
    def text(self) -> str:
        """The share in words: '4 cores', '2 of 4 cores (0, 1), quota 0.5 of a core'."""
        count = len(self.cores)
        words = f"{count} core{'s' * (count != 1)}"
        if count < self.machine_cores:
            words = f"{count} of {self.machine_cores} cores ({', '.join(map(str, self.cores))})"
        return words if self.quota is None else f"{words}, {self.quota_text}"

    @property
    def quota_text(self) -> str:
        """The quota in words; empty without one."""
        if self.quota is None:
            return ""
        unit = "of a core" if self.quota < 1 else "core" if self.quota == 1 else "cores"
        return f"quota {self.quota:.3g} {unit}"

    def threads(self, wanted: int) -> int:
        """Return `wanted`, but no more threads than can run at the same time."""
        return max(1, min(wanted, self.most_threads))


def cpu_share(root: Path = Path("/")) -> CpuShare:
    """Return this process's share; the quota is that of the tightest control group it is in, None without a limit."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    quota = cpu_quota(root)
    machine_cores = max(len(cores), os.cpu_count() or 1)
    return CpuShare(cores, machine_cores, quota if quota is not None and quota < len(cores) else None)


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the quota in cores of the tightest control group that this process is in, None without one."""
    quotas = [quota for group in groups_of("cpu", root) if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def cpu_name(root: Path = Path("/")) -> str:
    """Return the name of the processor, or of the board where Arm names that; family and model where it has no number.

    A virtual machine's may be 'Intel(R) Xeon(R) Processor' on every generation.
    """
    fields: dict[str, str] = {}
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model") or platform.machine()
    if re.search(r"\d", _SAYS_NOTHING.sub("", name)):
        return name
    told = [f"{word} {fields[key]}" for key, word in _IDENTITY.items() if fields.get(key)]
    return f"{name} ({', '.join(told)})" if told else name


def _quota(group: Group) -> float | None:
    """Return one group's quota in cores; None for 'max', -1, and whatever is no pair of numbers."""
    if group.version == 2:
        found = _QUOTA_V2.fullmatch(group.text("cpu.max") or "")
        quota, period = (int(found[1]), int(found[2])) if found else (0, 0)
    else:
        texts = [group.text(name) or "" for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        quota, period = (int(text) if _NUMBER.fullmatch(text) else 0 for text in texts)
    return quota / period if quota > 0 and period > 0 else None
