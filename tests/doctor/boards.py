"""Trees of /proc, /sys and /etc, one for each board of device_profiles/, as compact code.

They are WRITTEN after the formats that the kernel, the firmware and the distributions document, with the names that
boards give themselves in public logs. They were not recorded on boards: we hold none. A recorded tree replaces one here
as soon as somebody sends it. Every tree is of a board on which all is well; tests plant what is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BOARDS", "NIGHT_S", "RPI", "Link", "Tree", "elf", "packages", "plant"]

NIGHT_S = 1_795_000_000.0  # 2026-11-18: the time at which they are examined
A53 = (0x41, 0xD03, "fp asimd evtstrm crc32 cpuid")
A57 = (0x41, 0xD07, "fp asimd evtstrm aes pmull sha1 sha2 crc32")
A72 = (0x41, 0xD08, "fp asimd evtstrm crc32 cpuid")
A76 = (
    0x41,
    0xD0B,
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
)
A78AE = (0x41, 0xD42, A76[2] + " uscat ilrcpc flagm")
CARMEL = (0x4E, 0x004, "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm dcpop")
Core = tuple[int, int, str]


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Tree = dict[str, str | bytes | Link]


def plant(tree: Mapping[str, str | bytes | Link | None], root: Path) -> Path:
    """Write a tree below `root`; an entry that is None is left out."""
    for name, content in tree.items():
        path = root / name
        if content is None:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
    return root


def elf(bits: int, machine: int) -> bytes:
    """Return the beginning of a program: class (e_ident[4]) and machine (e_machine), little-endian."""
    return b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9) + (2).to_bytes(2, "little") + bytes([machine, 0, 1])


def packages(python: str = "3.11", **versions: str | None) -> Tree:
    """Return the metadata of the service's packages; None leaves one out."""
    installed: dict[str, str | None] = {
        "numpy": "2.3.5", "PyYAML": "6.0.3", "tokenizers": "0.22.1", "safetensors": "0.7.0", "psutil": "7.1.3",
        "onnxruntime": "1.32.0",
    }  # fmt: skip
    place = f"opt/edge-far/venv/lib/python{python}/site-packages"
    tree: Tree = {}
    for name, version in {**installed, **versions}.items():
        if version is not None:
            file = f"{place}/{name.replace('-', '_')}-{version}.dist-info/METADATA"
            tree[file] = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    return tree


def cpuinfo(core: Core, cores: int, last: str = "") -> str:
    implementer, part, features = core
    each = (
        f"BogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: {implementer:#04x}\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part:#05x}\nCPU revision\t: 3\n\n"
    )
    return "".join(f"processor\t: {number}\n{each}" for number in range(cores)) + last


def disk(device: str, number: str, *, kind: str = "", options: str = "rw,noatime") -> Tree:
    """Return a root file system on a partition; `kind` is the card's type, as the mmc driver tells it."""
    tree: Tree = {
        "proc/self/mountinfo": "22 28 0:21 / /proc rw,nosuid - proc proc rw\n"
        f"28 1 {number} / / {options} shared:1 - ext4 /dev/{device} {options.partition(',')[0]}\n"
        "31 28 0:24 / /run rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=189164k,mode=755\n",
        f"sys/dev/block/{number}/uevent": f"MAJOR=179\nMINOR=2\nDEVNAME={device}\nDEVTYPE=partition\nPARTN=2\n",
    }
    if kind:
        tree[f"sys/block/{device.rpartition('p')[0]}/device/type"] = f"{kind}\n"
    return tree


def status(state: str = "healthy", summary: str = "Healthy: uses release 000002.", *advice: str) -> str:
    """Return what the service shows of itself."""
    document = {"state": state, "checked_s": round(NIGHT_S - 3600), "summary": summary, "advice": list(advice)}
    return json.dumps(document)


def linux(core: Core, cores: int, ram_kib: int, *, kernel: str, python: str = "3.11") -> Tree:
    """Return what every board's Linux has, on which edge-far is installed as a service and all is well."""
    return {
        "proc/cpuinfo": cpuinfo(core, cores),
        "proc/meminfo": f"MemTotal:{ram_kib:>15} kB\nMemFree:{ram_kib // 2:>15} kB\n"
        f"MemAvailable:{ram_kib - 66_000:>10} kB\n",
        "proc/self/status": f"Name:\tpython3\nCpus_allowed:\tf\nCpus_allowed_list:\t0-{cores - 1}\n",
        "proc/self/cgroup": "0::/system.slice/edge-far.service\n",
        "proc/sys/kernel/osrelease": f"{kernel}\n",
        "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/zram0  partition\t262140\t\t0\t\t100\n",
        "proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t66\t1\nmemory\t0\t66\t1\n",
        "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "45277\n",
        "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
        "sys/class/thermal/cooling_device0/cur_state": "0\n",
        "sys/class/thermal/cooling_device0/max_state": "5\n",
        **{
            f"sys/devices/system/cpu/cpu{number}/cpufreq/{name}": f"{value}\n"
            for number in range(cores)
            for name, value in (
                ("scaling_governor", "ondemand"), ("scaling_max_freq", 1500000), ("cpuinfo_max_freq", 1500000),
            )
        },
        "bin/sh": "",
        "usr/bin/python3": elf(64, 0xB7),
        f"usr/lib/python{python}/lib-dynload/_ctypes.cpython-{python.replace('.', '')}-aarch64-linux-gnu.so": "",
        f"usr/lib/python{python}/lib-dynload/_sqlite3.cpython-{python.replace('.', '')}-aarch64-linux-gnu.so": "",
        "run/systemd/timesync/synchronized": "",
        "etc/systemd/system/edge-far.service": "[Service]\nType=notify\nEnvironment=ORT_DISABLE_TELEMETRY=1\n",
        "etc/systemd/system/timers.target.wants/edge-far.timer": Link("/etc/systemd/system/edge-far.timer"),
        "etc/edge-far/edge-far.env": "EDGE_FAR_PROFILE=auto\nEDGE_FAR_BUNDLE=/opt/edge-far/bundle\n",
        "run/edgefar/status.json": status(),
        "var/lib/private/edge-far/store.sqlite3": "",
        "var/lib/edge-far": Link("private/edge-far"),
        "var/cache/private/edge-far/.keep": "",
        **packages(python),
    }  # fmt: skip


def raspberry_pi(model: str, core: Core, ram_kib: int, *, debian: int = 12) -> Tree:
    python = "3.11" if debian == 12 else "3.13"
    return {
        **linux(core, 4, ram_kib, kernel="6.12.47+rpt-rpi-v8", python=python),
        "proc/cpuinfo": cpuinfo(core, 4, f"Revision\t: c03115\nSerial\t\t: 100000000000abcd\nModel\t\t: {model}\n"),
        "proc/device-tree/model": f"{model}\0",
        "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
        "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
        "etc/os-release": f'PRETTY_NAME="Debian GNU/Linux {debian}"\nVERSION_ID="{debian}"\nID=debian\n',
        "boot/firmware/cmdline.txt": "console=tty1 root=PARTUUID=1234abcd-02 rootfstype=ext4 fsck.repair=yes rootwait "
        "cgroup_enable=memory psi=1\n",
        "boot/cmdline.txt": "DO NOT EDIT THIS FILE\n\nThe file has moved to /boot/firmware/cmdline.txt\n",
        **disk("mmcblk0p2", "179:2", kind="SD"),
    }  # fmt: skip


def raspberry_pi_5(ram_kib: int) -> Tree:
    """As the 4, but for an address in the firmware's directory, and a supply that says what it can."""
    tree = raspberry_pi("Raspberry Pi 5 Model B Rev 1.0", A76, ram_kib, debian=13)
    flags = tree.pop("sys/devices/platform/soc/soc:firmware/get_throttled")
    return {
        **tree,
        "proc/sys/kernel/osrelease": "6.12.47+rpt-rpi-2712\n",
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": flags,
        "proc/device-tree/chosen/power/max_current": (5000).to_bytes(4, "big"),
        **disk("nvme0n1p2", "259:2"),
    }


def jetson(model: str, core: Core, cores: int, ram_kib: int, *, kernel: str, disk_of: Tree) -> Tree:
    return {
        **linux(core, cores, ram_kib, kernel=kernel),
        "proc/device-tree/model": f"{model}\0",
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3\n",
        "boot/extlinux/extlinux.conf": "TIMEOUT 30\nDEFAULT primary\nLABEL primary\n      LINUX /boot/Image\n"
        "      APPEND ${cbootargs} root=/dev/mmcblk0p1 rw rootwait\n",
        "var/lib/nvpmodel/status": "pmode:0000 fmode:quiet\n",
        "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=7W >\n",
        "sys/class/hwmon/hwmon3/name": "ina3221\n",
        "sys/class/hwmon/hwmon3/in1_label": "VDD_IN\n",
        "sys/class/hwmon/hwmon3/in1_input": "5040\n",
        "sys/class/hwmon/hwmon3/curr1_input": "980\n",
        **disk_of,
    }


def workstation() -> Tree:
    flags = "fpu sse4_2 avx avx2 fma avx512f avx512_vnni"
    cores = "".join(
        f"processor\t: {number}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz\n"
        f"flags\t\t: {flags}\n\n"
        for number in range(8)
    )
    tree = linux(A53, 8, 32_000_000, kernel="6.1.0-41-amd64")
    return {
        **tree,
        "proc/cpuinfo": cores,
        "sys/class/dmi/id/product_name": "ProLiant DL380 Gen10\n",
        "usr/bin/python3": elf(64, 0x3E),
        **disk("sda2", "8:2"),
        "sys/block/sda": Link("../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"),
    }


# Profile -> the tree of its board.
BOARDS: dict[str, Tree] = {
    "rpi-zero2w-512": raspberry_pi("Raspberry Pi Zero 2 W Rev 1.0", A53, 426_124),
    "rpi3b-1gb": raspberry_pi("Raspberry Pi 3 Model B Plus Rev 1.3", A53, 926_948),
    "rpi4-2gb": raspberry_pi("Raspberry Pi 4 Model B Rev 1.2", A72, 1_889_980),
    "rpi4-4gb": raspberry_pi("Raspberry Pi 4 Model B Rev 1.5", A72, 3_884_360),
    "rpi4-8gb": raspberry_pi("Raspberry Pi Compute Module 4 Rev 1.1", A72, 7_999_848),
    "rpi5-4gb": raspberry_pi_5(4_147_312),
    "rpi5-8gb": raspberry_pi_5(8_256_096),
    "rpi5-16gb": raspberry_pi_5(16_608_272),
    "jetson-nano-4gb": jetson(
        "NVIDIA Jetson Nano Developer Kit", A57, 4, 4_051_048, kernel="4.9.337-tegra",
        disk_of=disk("mmcblk0p1", "179:1", kind="SD"),
    ),
    "jetson-xavier-nx-8gb": jetson(
        "NVIDIA Jetson Xavier NX Developer Kit", CARMEL, 6, 7_160_848, kernel="5.10.216-tegra",
        disk_of=disk("mmcblk0p1", "179:1", kind="MMC"),
    ),
    "jetson-orin-nano-8gb": jetson(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", A78AE, 6, 7_802_936,
        kernel="5.15.148-tegra", disk_of=disk("nvme0n1p1", "259:1"),
    ),
    "jetson-orin-nx-16gb": jetson(
        "NVIDIA Orin NX Developer Kit", A78AE, 8, 16_031_008, kernel="5.10.216-tegra",
        disk_of=disk("nvme0n1p1", "259:1"),
    ),
    "workstation": workstation(),
}  # fmt: skip

RPI = BOARDS["rpi4-4gb"]
