"""Cores and quotas of both versions of control groups; the tightest counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_far.device.board.cpu import CpuShare, cpu_name, cpu_share

V2 = "0::/system.slice/edge-far.service\n"
V1 = "4:cpu,cpuacct:/docker/x\n"
SERVICE = "sys/fs/cgroup/system.slice/edge-far.service/cpu.max"
DOCKER = "sys/fs/cgroup/cpu,cpuacct/docker"


def tree(root: Path, group: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": group, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("group", "files", "quota"),
    [
        (V2, {}, None),
        (V2, {SERVICE: "max 100000\n"}, None),
        (V2, {SERVICE: "50000 100000\n"}, 0.5),
        (V2, {SERVICE: "max 100000\n", "sys/fs/cgroup/system.slice/cpu.max": "120000 100000\n"}, 1.2),
        (V2, {SERVICE: "150000 100000\n", "sys/fs/cgroup/system.slice/cpu.max": "25000 100000\n"}, 0.25),
        (V2, {SERVICE: "90000 100000\n", "sys/fs/cgroup/cpu.max": "10000 20000\n"}, 0.5),  # the container's own
        (V2, {SERVICE: "800000 100000\n"}, None),  # more than there are cores
        (V2, {SERVICE: "50000 0\n"}, None),
        (V2, {SERVICE: "50000\n"}, None),
        (V2, {SERVICE: "much 100000\n"}, None),
        (V1, {f"{DOCKER}/x/cpu.cfs_quota_us": "-1\n", f"{DOCKER}/x/cpu.cfs_period_us": "100000\n"}, None),
        (V1, {f"{DOCKER}/x/cpu.cfs_quota_us": "50000\n", f"{DOCKER}/x/cpu.cfs_period_us": "100000\n"}, 0.5),
        (V1, {f"{DOCKER}/x/cpu.cfs_quota_us": "50000\n"}, None),
        (V1, {f"{DOCKER}/cpu.cfs_quota_us": "70000\n", f"{DOCKER}/cpu.cfs_period_us": "100000\n"}, 0.7),
        # Inside a container that sees the host's name, the mount is the container's own group.
        (V1, {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "3", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "4"}, 0.75),
    ],
)
def test_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, files: dict[str, str], quota: float | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert cpu_share(tree(tmp_path, group, files)).quota == quota


def test_cores_are_those_of_the_cpuset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    one = {min(allowed)}
    os.sched_setaffinity(0, one)
    try:
        share = cpu_share(tmp_path)
    finally:
        os.sched_setaffinity(0, allowed)
    assert share.cores == tuple(one) and share.most_threads == 1 and share.threads(4) == 1


@pytest.mark.parametrize(
    ("share", "most", "text"),
    [
        (CpuShare((0,), 1), 1, "1 core"),
        (CpuShare((0, 1, 2, 3), 4), 4, "4 cores"),
        (CpuShare((0, 1, 2, 3), 4, 0.5), 1, "4 cores, quota 0.5 of a core"),
        (CpuShare((0, 1, 2, 3), 4, 1.0), 1, "4 cores, quota 1 core"),
        (CpuShare((0, 1, 2, 3), 4, 2.5), 3, "4 cores, quota 2.5 cores"),
        (CpuShare((2, 3), 4, 0.1), 1, "2 of 4 cores (2, 3), quota 0.1 of a core"),
    ],
)
def test_threads_and_words(share: CpuShare, most: int, text: str) -> None:
    assert (share.most_threads, share.text) == (most, text)
    assert share.threads(1) == 1 and share.threads(64) == most


X86 = "processor\t: 0\nvendor_id\t: X\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: {}\nstepping\t: 1\n\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (X86.format("AMD EPYC 7B13"), "AMD EPYC 7B13"),
        (X86.format("Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz"), "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz"),
        (X86.format("A Processor"), "A Processor (family 6, model 143, stepping 1)"),
        (X86.format("A Xeon CPU @ 2.60GHz"), "A Xeon CPU @ 2.60GHz (family 6, model 143, stepping 1)"),
        (
            X86.format("QEMU Virtual CPU version 2.5+"),
            "QEMU Virtual CPU version 2.5+ (family 6, model 143, stepping 1)",
        ),
        (X86.format("first 1") + X86.format("second 2").replace("143", "7"), "first 1"),
        (f"{ARM}Model\t\t: Raspberry Pi 4 Model B Rev 1.4\n", "Raspberry Pi 4 Model B Rev 1.4"),
    ],
)
def test_a_processor_is_named_by_numbers_where_its_name_says_nothing(tmp_path: Path, cpuinfo: str, name: str) -> None:
    assert cpu_name(tree(tmp_path, V2, {"proc/cpuinfo": cpuinfo})) == name


def test_a_processor_without_a_name_is_told_by_its_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_far.device.board.cpu.platform.machine", lambda: "aarch64")
    assert cpu_name(tmp_path) == "aarch64"
    assert cpu_name(tree(tmp_path, V2, {"proc/cpuinfo": ARM})) == "aarch64 (implementer 0x41, part 0xd08)"
