"""The examination, on the tree of every board (boards.py): right board, right profile, and each planted trap found."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from edge_far.doctor.examination import examine, subject_below
from edge_far.doctor.finding import Finding, worst
from edge_far.profile.document import builtin_names
from tests.doctor.boards import BOARDS, NIGHT_S, RPI, Link, Tree, disk, elf, packages, plant, status
from tests.file_systems import refuse_fsync


def findings_of(tree: Tree, root: Path, now_s: float = NIGHT_S) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(subject_below(plant(tree, root), now_s=now_s))}


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_on_which_all_is_well(name: str, tmp_path: Path) -> None:
    found = findings_of(BOARDS[name], tmp_path)
    assert {each.name: each.verdict for each in found.values() if each.verdict not in ("ok", "note")} == {}
    assert found["profile"].verdict == "ok" and found["profile"].read.startswith(name)
    assert found["user land"].read == f"64-bit ({'x86_64' if name == 'workstation' else 'aarch64'})"
    assert found["processor share"].verdict == found["memory"].verdict == found["onnxruntime"].verdict == "ok"
    assert found["power"].verdict == ("note" if name == "workstation" else "ok")
    unknown = {each.name for each in found.values() if each.read == "unknown"}
    assert unknown == ({"power"} if name == "workstation" else set())


def test_every_profile_has_a_board_here() -> None:
    assert set(BOARDS) == set(builtin_names())


@pytest.mark.parametrize(
    ("name", "board", "instructions", "state_disk"),
    [
        ("rpi-zero2w-512", "Raspberry Pi Zero 2 W Rev 1.0, cortex-a53, 4 cores", "note", "SD card"),
        ("rpi4-8gb", "Raspberry Pi Compute Module 4 Rev 1.1, cortex-a72, 4 cores", "note", "SD card"),
        ("rpi5-16gb", "Raspberry Pi 5 Model B Rev 1.0, cortex-a76, 4 cores", "ok", "NVMe"),
        ("jetson-xavier-nx-8gb", "NVIDIA Jetson Xavier NX Developer Kit, carmel, 6 cores", "note", "eMMC"),
        ("jetson-orin-nx-16gb", "NVIDIA Orin NX Developer Kit, cortex-a78ae, 8 cores", "ok", "NVMe"),
    ],
)
def test_what_is_told_of_a_board(name: str, board: str, instructions: str, state_disk: str, tmp_path: Path) -> None:
    found = findings_of(BOARDS[name], tmp_path)
    assert found["board"].read == board
    assert found["instructions"].verdict == instructions
    assert found["state disk"].read.startswith(state_disk)


def test_an_old_kernel_has_no_pressure_and_a_jetson_tells_its_power(tmp_path: Path) -> None:
    tree = dict(BOARDS["jetson-nano-4gb"])
    del tree["proc/pressure/memory"]
    found = findings_of(tree, tmp_path)
    assert found["memory pressure"].verdict == "note" and "4.9.337-tegra" in found["memory pressure"].read
    assert found["power"].read == "power mode 0 (MAXN); VDD_IN 5.04 V, 4.9 W"


OFF = {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n", "proc/cgroups": "memory\t0\t66\t0\n"}
PLAIN = "console=tty1 root=PARTUUID=1234abcd-02 rootwait\n"
ZERO = BOARDS["rpi-zero2w-512"]
PI5 = BOARDS["rpi5-4gb"]
ORIN = BOARDS["jetson-orin-nano-8gb"]
UNIT = "etc/systemd/system/edge-far.service"
NO_SWAP = {"proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"}
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"

# What is planted -> the tree, what is changed (None: taken away), the finding, its verdict, and words of it.
TRAPS: dict[str, tuple[Tree, dict[str, str | bytes | Link | None], str, str, str]] = {
    "32-bit user land": (RPI, {"usr/bin/python3": elf(32, 0x28)}, "user land", "bad", "32-bit (32-bit Arm)"),
    "32-bit programs are told 32-bit features": (
        RPI,
        {"proc/cpuinfo": "processor\t: 0\nFeatures\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 crc32\n"},
        "instructions",
        "note",
        "no 8-bit dot product",
    ),
    "a program that reported": (
        RPI,
        {"home/pi/.cache/Microsoft/DeveloperTools/.onnxruntime": "1234"},
        "telemetry",
        "note",
        "/home/pi/.cache/Microsoft/DeveloperTools/.onnxruntime",
    ),
    "memory cgroup off": (
        RPI,
        {**OFF, "boot/firmware/cmdline.txt": PLAIN},
        "memory cgroup",
        "warn",
        "sudo sed -i '1 s/$/ cgroup_enable=memory/' /boot/firmware/cmdline.txt && sudo reboot",
    ),
    "both off": (
        RPI,
        {**OFF, "proc/pressure/memory": None, "boot/firmware/cmdline.txt": PLAIN},
        "memory pressure",
        "warn",
        "sudo sed -i '1 s/$/ cgroup_enable=memory psi=1/' /boot/firmware/cmdline.txt && sudo reboot",
    ),
    "both off on an old system": (
        RPI,
        {**OFF, "proc/pressure/memory": None, "boot/firmware/cmdline.txt": None, "boot/cmdline.txt": PLAIN},
        "memory cgroup",
        "warn",
        "cgroup_enable=memory psi=1/' /boot/cmdline.txt",
    ),
    "an old system whose boot partition is not mounted": (
        RPI,
        {**OFF, "boot/firmware/cmdline.txt": None, "boot/cmdline.txt": None, "etc/os-release": 'VERSION_ID="11"\n'},
        "memory cgroup",
        "warn",
        "/' /boot/cmdline.txt",
    ),
    "PSI asked for, not started anew": (
        RPI,
        {"proc/pressure/memory": None},
        "memory pressure",
        "warn",
        "sudo reboot   #",
    ),
    "PSI off on a Jetson": (
        ORIN,
        {"proc/pressure/memory": None},
        "memory pressure",
        "warn",
        "sudo sed -i '/^ *APPEND/ s/$/ psi=1/' /boot/extlinux/extlinux.conf && sudo reboot",
    ),
    "a kernel that was built without PSI": (
        ORIN,
        {"proc/pressure/memory": None, "boot/config-5.15.148-tegra": "# CONFIG_PSI is not set\n"},
        "memory pressure",
        "note",
        "not in this kernel",
    ),
    "throttled now": (RPI, {THROTTLED: "40004\n"}, "throttling", "warn", "now, by heat"),
    "throttled before": (RPI, {THROTTLED: "40000\n"}, "throttling", "warn", "since the start, by heat"),
    "soft limit before": (RPI, {THROTTLED: "80000\n"}, "throttling", "warn", "since the start, by heat"),
    "cooled by its clock": (
        ORIN,
        {"sys/class/thermal/cooling_device0/cur_state": "3\n"},
        "throttling",
        "warn",
        "now, by heat",
    ),
    "low voltage now": (RPI, {THROTTLED: "50005\n"}, "power", "bad", "low voltage now"),
    "the voltage's alarm alone": (
        RPI,
        {THROTTLED: None, "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"},
        "power",
        "bad",
        "low voltage now",
    ),
    "low voltage before": (RPI, {THROTTLED: "50000\n"}, "power", "warn", "low voltage since the start"),
    "a Pi 5 on a weak supply": (
        PI5,
        {"proc/device-tree/chosen/power/max_current": (3000).to_bytes(4, "big")},
        "power",
        "note",
        "the supply offers 3 A",
    ),
    "hot": (RPI, {"sys/class/thermal/thermal_zone0/temp": "81000\n"}, "heat", "warn", "81 degrees C (cpu-thermal)"),
    "clock capped": (
        RPI,
        {"sys/devices/system/cpu/cpu2/cpufreq/scaling_max_freq": "600000\n"},
        "clock speed",
        "warn",
        "0.60 GHz",
    ),
    "powersave": (
        RPI,
        {"sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n"},
        "clock speed",
        "warn",
        "schedutil",
    ),
    "a Jetson's power mode": (
        ORIN,
        {"sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "960000\n"},
        "clock speed",
        "note",
        "nvpmodel -m 0",
    ),
    "runs on battery": (
        RPI,
        {
            f"sys/class/power_supply/BAT0/{key}": value
            for key, value in (("type", "Battery"), ("status", "Discharging"), ("capacity", "63"))
        },
        "power",
        "note",
        "battery, 63 % left",
    ),
    "quota": (
        RPI,
        {"sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n"},
        "processor share",
        "warn",
        "0.5 of a core",
    ),
    "quota, version 1": (
        RPI,
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/1234\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/1234/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/1234/cpu.cfs_period_us": "100000\n",
        },
        "processor share",
        "warn",
        "quota 1.5 cores",
    ),
    "cpuset": (
        RPI,
        {"proc/self/status": "Cpus_allowed_list:\t0,2-3\n"},
        "processor share",
        "note",
        "3 of 4 cores (0, 2, 3)",
    ),
    "memory limit": (
        RPI,
        {"sys/fs/cgroup/system.slice/edge-far.service/memory.max": f"{512 << 20}\n"},
        "memory limit",
        "bad",
        "above 2816 MiB",
    ),
    "little memory available": (
        RPI,
        {"proc/meminfo": "MemTotal:  3884360 kB\nMemAvailable:  1048576 kB\n"},
        "memory",
        "warn",
        "--budget-mib 768",
    ),
    "no swap with 512 MB": (ZERO, NO_SWAP, "swap", "warn", "sudo apt install zram-tools"),
    "no swap with 4 GB": (RPI, NO_SWAP, "swap", "ok", "none"),
    "swap on the card": (
        ZERO,
        {"proc/swaps": "Filename Type Size Used Priority\n/var/swap file 102396 0 -2\n"},
        "swap",
        "note",
        "/var/swap",
    ),
    "read-only": (
        RPI,
        disk("mmcblk0p2", "179:2", kind="SD", options="ro,noatime"),
        "state disk",
        "bad",
        "remount,rw /",
    ),
    "SD card": (RPI, {}, "state disk", "note", "SD card (ext4 of /dev/mmcblk0p2), for /var/lib/edge-far"),
    "USB disk": (
        RPI,
        {**disk("sda1", "8:1"), "sys/block/sda": Link("../devices/platform/scb/usb2/2-1/2-1:1.0/host0/block/sda")},
        "state disk",
        "ok",
        "USB disk",
    ),
    "state in memory": (
        RPI,
        {"proc/self/mountinfo": "28 1 0:30 / /var/lib rw - tmpfs tmpfs rw\n"},
        "state disk",
        "bad",
        "after a restart",
    ),
    "overlay": (
        RPI,
        {"proc/self/mountinfo": "28 1 0:30 / / rw - overlay overlay rw\n"},
        "state disk",
        "warn",
        "overlay",
    ),
    "network": (
        RPI,
        {"proc/self/mountinfo": "28 1 0:30 / / rw - nfs4 nas:/pi rw\n"},
        "state disk",
        "warn",
        "over a network",
    ),
    "never synchronized": (
        RPI,
        {"run/systemd/timesync/synchronized": None, "run/systemd/timesync/other": ""},
        "clock",
        "warn",
        "set-ntp true",
    ),
    "service not installed": (RPI, {UNIT: None}, "service", "note", "sudo deploy/install.sh"),
    "timer not enabled": (
        RPI,
        {"etc/systemd/system/timers.target.wants/edge-far.timer": None},
        "service",
        "warn",
        "enable --now edge-far.timer",
    ),
    "service failed": (
        RPI,
        {"run/edgefar/status.json": status("broken", "Broken: the database is damaged.", "look at the card")},
        "service",
        "bad",
        "look at the card",
    ),
    "service wants attention": (
        RPI,
        {"run/edgefar/status.json": status("attention", "Works, but look at this: x.")},
        "service",
        "warn",
        "look at this",
    ),
    "status damaged": (RPI, {"run/edgefar/status.json": "{"}, "service", "note", "no status can be read"),
    "telemetry on in the unit": (
        RPI,
        {UNIT: "[Service]\n# ORT_DISABLE_TELEMETRY=1\n"},
        "telemetry",
        "warn",
        "systemctl edit edge-far",
    ),
    "telemetry on in a drop-in": (
        RPI,
        {f"{UNIT}.d/override.conf": "[Service]\nEnvironment=ORT_DISABLE_TELEMETRY=0\n"},
        "telemetry",
        "warn",
        "override.conf",
    ),
    "telemetry on for everybody": (
        RPI,
        {"etc/environment": 'ORT_DISABLE_TELEMETRY="0"\n'},
        "telemetry",
        "warn",
        "/etc/environment",
    ),
    "Python without sqlite3": (
        RPI,
        {"usr/lib/python3.11/lib-dynload/_sqlite3.cpython-311-aarch64-linux-gnu.so": None},
        "python",
        "bad",
        "without sqlite3",
    ),
    "a board that we do not know": (
        RPI,
        {"proc/device-tree/model": "Radxa ROCK 5B\0"},
        "profile",
        "note",
        "edge-far profiles show jetson-nano-4gb",
    ),
    "a Pi 4 with 1 GB": (RPI, {"proc/meminfo": "MemTotal: 926948 kB\n"}, "profile", "note", "rpi3b-1gb"),
    "device tree hidden, as in a container": (RPI, {"proc/device-tree/model": None}, "profile", "ok", "rpi4-4gb"),
    "an old workstation": (
        BOARDS["workstation"],
        {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon 5\nflags\t: sse4_2 avx\n"},
        "instructions",
        "warn",
        "no AVX2",
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_is_found(trap: str, tmp_path: Path) -> None:
    tree, change, name, verdict, words = TRAPS[trap]
    changed: Tree = {key: value for key, value in (tree | change).items() if value is not None}  # type: ignore[misc]
    found = findings_of(changed, tmp_path)[name]
    assert found.verdict == verdict, found
    assert words in f"{found.read}\n{found.why}\n{found.todo}"


@pytest.mark.parametrize(
    ("board", "version", "verdict", "words"),
    [
        ("rpi4-4gb", "1.32.0", "ok", "onnxruntime 1.32.0"),
        ("rpi4-4gb", "1.21.0", "bad", "Illegal instruction"),
        ("rpi-zero2w-512", "1.21.0", "bad", "Illegal instruction"),
        ("rpi5-8gb", "1.21.0", "bad", "needs 1.23 or newer"),
        ("jetson-nano-4gb", "1.17.3", "bad", "IR version 10"),
        ("rpi4-4gb", "1.29.0", "warn", "no shell"),
        ("rpi4-4gb", None, "bad", "pip install './edge-far[device]'  # beside the checkout"),
    ],
)
def test_onnxruntime(board: str, version: str | None, verdict: str, words: str, tmp_path: Path) -> None:
    tree = {key: value for key, value in BOARDS[board].items() if "site-packages/onnxruntime" not in key}
    tree.pop("bin/sh")  # an image for one program alone; the trap of 1.29.0
    found = findings_of({**tree, **packages(onnxruntime=version)}, tmp_path)["onnxruntime"]
    assert found.verdict == verdict, found
    assert words in f"{found.read}\n{found.why}\n{found.todo}"


def test_onnxruntime_for_training_beside_the_stock_one(tmp_path: Path) -> None:
    tree: Tree = {**RPI, **packages(**{"onnxruntime-training": "1.19.2"})}
    assert findings_of(tree, tmp_path)["onnxruntime"].verdict == "bad"


def test_a_missing_package(tmp_path: Path) -> None:
    tree = {key: value for key, value in RPI.items() if "/tokenizers-" not in key}
    found = findings_of(tree, tmp_path)["packages"]
    assert found.verdict == "bad" and found.why == "missing: tokenizers"


def test_a_clock_that_began_anew(tmp_path: Path) -> None:
    found = findings_of(RPI, tmp_path, now_s=4200.0)["clock"]
    assert (found.verdict, found.read) == ("bad", "1970-01-01 01:10 UTC")


def test_the_clock_of_a_tree_of_files_is_not_this_machines(tmp_path: Path) -> None:
    tree = plant(RPI, tmp_path)
    found = {finding.name: finding for finding in examine(subject_below(tree))}
    assert (found["clock"].verdict, found["clock"].read) == ("note", "unknown")
    assert "days ago" not in found["service"].why
    assert subject_below(Path("/")).now_s is not None


def test_a_service_that_went_quiet(tmp_path: Path) -> None:
    found = findings_of(RPI, tmp_path, now_s=NIGHT_S + 5 * 86_400)["service"]
    assert found.verdict == "warn" and "5 days ago" in found.why


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.statvfs

    def full(path: Path) -> os.statvfs_result:
        return os.statvfs_result((*genuine(path)[:4], 1024, *genuine(path)[5:10]))  # f_bavail

    monkeypatch.setattr(os, "statvfs", full)
    found = findings_of(RPI, tmp_path)
    assert found["state space"].verdict == found["cache space"].verdict == "bad"


@pytest.mark.parametrize(
    ("number", "files", "verdict"),
    [(errno.EINVAL, False, "warn"), (errno.EINVAL, True, "warn"), (errno.EIO, True, "bad")],
)
def test_a_disk_that_does_not_sync(
    number: int, files: bool, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_fsync(monkeypatch, number, files=files)
    found = findings_of(RPI, tmp_path)["state fsync"]
    assert found.verdict == verdict and ("file" if files else "directory") in found.why
    assert [path.name for path in (tmp_path / "var/lib/private/edge-far").iterdir()] == ["store.sqlite3"]


def test_nothing_at_all_is_unknown_and_no_crash(tmp_path: Path) -> None:
    found = findings_of({}, tmp_path)
    assert list(found) == list(findings_of(RPI, tmp_path / "other"))
    bad = {name for name, finding in found.items() if finding.verdict in ("warn", "bad")}
    assert bad == {"onnxruntime", "packages"}  # nothing is installed there
    fine = {name for name, finding in found.items() if finding.verdict == "ok"}
    assert not {name for name in fine if not name.startswith(("state ", "cache "))}  # directories that could be tried
    assert worst(list(found.values())) == "bad"
    assert worst([]) == "ok"


def test_garbage_is_unknown_and_no_crash(tmp_path: Path) -> None:
    tree: Tree = {name: b"\xff\x00-1 4 : , / 99999999999999999999999\n" for name, text in RPI.items() if text}
    assert list(findings_of({**tree, "usr/bin/python3": elf(64, 0xB7)}, tmp_path)) != []


def test_a_file_in_the_place_of_the_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("")
    found = {each.name: each for each in examine(subject_below(tmp_path, state=Path("/state")))}
    assert found["state disk"].verdict == "bad" and "is no directory" in found["state disk"].read
    assert state.read_text() == ""


def test_a_state_that_this_user_may_not_see_is_no_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd keeps a DynamicUser's state below /var/lib/private, mode 0700; root, who runs tests, may see it."""
    hidden, exists = tmp_path / "var/lib/edge-far", Path.exists

    def refused(path: Path, *arguments: Any, **named: Any) -> bool:
        if path.is_relative_to(hidden):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path, *arguments, **named)

    monkeypatch.setattr(Path, "exists", refused)
    found = {each.name: each for each in examine(subject_below(tmp_path, state=Path("/var/lib/edge-far")))}
    assert "is no directory" not in found["state disk"].read and "state space" in found
