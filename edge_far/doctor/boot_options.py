"""Which file holds the kernel's options on this board and system, and the line that adds one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from edge_far.device.board.kernel_files import read_text
from edge_far.doctor.finding import Subject

__all__ = ["how_to_add"]

# Where Raspberry Pi OS keeps them: since Debian 12, and before. Ubuntu has the first as well.
PI_FILES = ("/boot/firmware/cmdline.txt", "/boot/cmdline.txt")
MOVED_SINCE = 12
JETSON_FILE = "/boot/extlinux/extlinux.conf"
GRUB_FILE = "/etc/default/grub"


def how_to_add(subject: Subject, option: str) -> str:
    """Return the line to type that adds an option to the kernel's, and starts the machine anew."""
    if subject.is_raspberry_pi:
        file = pi_file(subject.root)
        change = f"sudo sed -i '1 s/$/ {option}/' {file}"
    elif subject.is_jetson:
        file = JETSON_FILE
        change = f"sudo sed -i '/^ *APPEND/ s/$/ {option}/' {file}"
    elif (subject.root / GRUB_FILE.lstrip("/")).is_file():
        file = GRUB_FILE
        change = f"sudo sed -i '/^GRUB_CMDLINE_LINUX=/ s/\"$/ {option}\"/' {file} && sudo update-grub"
    else:
        return f"add {option} to the kernel's options in your boot loader, and start anew"
    if _asks(subject.root / file.lstrip("/"), option):
        return f"sudo reboot   # {file} has {option} already, but the kernel was started without"
    return f"{change} && sudo reboot"


def pi_file(root: Path) -> str:
    """Return the file of a Raspberry Pi; where none can be seen, the one of its Debian."""
    for name in PI_FILES:
        text = read_text(root / name.lstrip("/"))
        if text and "root=" in text:  # since Debian 12 the old one only says that it has moved
            return name
    release = re.search(r'^VERSION_ID="?([0-9]{1,3})', read_text(root / "etc/os-release") or "", re.MULTILINE)
    return PI_FILES[1] if release and int(release[1]) < MOVED_SINCE else PI_FILES[0]


def _asks(path: Path, option: str) -> bool:
    words = shlex.split(read_text(path) or "", comments=False, posix=False) if path.is_file() else []
    return set(option.split()) <= {word.strip('"') for word in words}
