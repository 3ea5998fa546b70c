"""What the kernel was told: memory control group, memory pressure (PSI), swap; and where its options are written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from edge_far.device.board.kernel_files import read_number, read_text
from edge_far.doctor.finding import UNKNOWN, Finding, Subject

__all__ = ["examine_kernel"]

OLDEST_WITH_PSI = (4, 20)
LITTLE_MIB = 1024
# Where Raspberry Pi OS keeps them: since Debian 12, and before. Ubuntu has the first as well.
PI_FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
MOVED_SINCE = 12
JETSON_FILE = "/boot/extlinux/extlinux.conf"
GRUB_FILE = "/etc/default/grub"


def examine_kernel(subject: Subject) -> list[Finding]:
    """Return the findings on control group, pressure and swap; what both of the first need is one line to type."""
    group, pressure = _memory_cgroup(subject), _pressure(subject)
    needs = {group.name: "cgroup_enable=memory", pressure.name: "psi=1"}
    missing = [finding for finding in (group, pressure) if finding.verdict == "warn"]
    line = _how_to_add(subject, " ".join(needs[finding.name] for finding in missing)) if missing else ""
    group, pressure = (replace(each, todo=line if each in missing else "") for each in (group, pressure))
    return [group, pressure, _swap(subject)]


def _memory_cgroup(subject: Subject) -> Finding:
    name, root = "memory cgroup", subject.root
    controllers = read_text(root / "sys/fs/cgroup/cgroup.controllers")
    if controllers is None:
        controllers = read_text(root / "sys/fs/cgroup/unified/cgroup.controllers")
    listed = re.search(r"^memory\s+[0-9]+\s+[0-9]+\s+([01])$", read_text(root / "proc/cgroups") or "", re.MULTILINE)
    if controllers is None and listed is None:
        return Finding(name, "note", UNKNOWN, "neither /sys/fs/cgroup nor /proc/cgroups can be read")
    if "memory" in (controllers or "").split() or (listed is not None and listed[1] == "1"):
        return Finding(name, "ok", "on")
    why = "MemoryMax= of the service has no effect; edge-far watches its own memory, but no wall stands behind it"
    return Finding(name, "warn", "off", why)


def _pressure(subject: Subject) -> Finding:
    name = "memory pressure"
    pressure = subject.sensors.pressure()
    if pressure is not None:
        return Finding(name, "ok", f"measured; {pressure.some_avg10_percent:g} % of the last 10 s waited for memory")
    kernel = read_text(subject.root / "proc/sys/kernel/osrelease") or ""
    version = re.match(r"([0-9]{1,3})\.([0-9]{1,3})", kernel)
    if version is None:
        return Finding(name, "note", UNKNOWN, "/proc/pressure/memory cannot be read")
    why = "nobody sees that the application waits for memory while training runs; only how much is left is watched"
    if (int(version[1]), int(version[2])) < OLDEST_WITH_PSI or _without_psi(subject, kernel):
        return Finding(name, "note", f"not in this kernel (Linux {kernel})", why)
    return Finding(name, "warn", "off", why)


def _without_psi(subject: Subject, kernel: str) -> bool:
    """Return whether the kernel was built without; False where its settings cannot be seen."""
    if not re.fullmatch(r"[\w.+~-]{1,100}", kernel):
        return False
    return "# CONFIG_PSI is not set" in (read_text(subject.root / f"boot/config-{kernel}") or "").splitlines()


def _swap(subject: Subject) -> Finding:
    name = "swap"
    text = read_text(subject.root / "proc/swaps")
    if text is None:
        return Finding(name, "note", UNKNOWN, "/proc/swaps cannot be read")
    found = [re.split(r"\s+", line.strip()) for line in text.splitlines()[1:]]
    swaps = [(row[0], int(row[2]) / 1024) for row in found if len(row) >= 3 and row[2].isdigit()]
    little = subject.board.sold_mib is not None and subject.board.sold_mib <= LITTLE_MIB
    if not swaps:
        if not little:
            return Finding(name, "ok", "none")
        why = "with so little memory, an update of the system beside training finds none left; zram costs no card"
        return Finding(name, "warn", "none", why, "sudo apt install zram-tools && sudo reboot")
    read = ", ".join(f"{place} {size:.0f} MiB" for place, size in swaps)
    on_disk = [place for place, _ in swaps if "zram" not in place]
    if not on_disk:
        return Finding(name, "ok", read, "compressed, in memory")
    swappiness = read_number(subject.root / "proc/sys/vm/swappiness", least=0, most=200)
    why = "on a card it wears the card out; the service itself never swaps (MemorySwapMax=0)"
    why += "" if swappiness is None else f"; swappiness {swappiness}"
    return Finding(name, "note", read, why)


def _how_to_add(subject: Subject, option: str) -> str:
    """Return the line to type that adds an option to the kernel's, and starts the machine anew."""
    if subject.is_raspberry_pi:
        file = _pi_file(subject.root)
        change = f"sudo sed -i '1 s/$/ {option}/' {file}"
    elif subject.is_jetson:
        file = JETSON_FILE
        change = f"sudo sed -i '/^ *APPEND/ s/$/ {option}/' {file}"
    elif read_text(subject.root / GRUB_FILE.lstrip("/")) is not None:
        file = GRUB_FILE
        change = f"sudo sed -i '/^GRUB_CMDLINE_LINUX=/ s/\"$/ {option}\"/' {file} && sudo update-grub"
    else:
        return f"add {option} to the kernel's options in your boot loader, and start anew"
    if _asks(subject.root / file.lstrip("/"), option):
        return f"sudo reboot   # {file} has {option} already, but the kernel was started without"
    return f"{change} && sudo reboot"


def _pi_file(root: Path) -> str:
    """Return the file of a Raspberry Pi; where none can be seen, the one of its Debian."""
    for name in PI_FILES:
        text = read_text(root / name.lstrip("/"))
        if text and "root=" in text:  # since Debian 12 the old one only says that it has moved
            return name
    release = re.search(r'^VERSION_ID="?([0-9]{1,3})', read_text(root / "etc/os-release") or "", re.MULTILINE)
    return PI_FILES[1] if release and int(release[1]) < MOVED_SINCE else PI_FILES[0]


def _asks(path: Path, option: str) -> bool:
    return set(option.split()) <= {word.strip('"') for word in (read_text(path) or "").split()}
