"""Reads the small files in which the kernel answers, below /sys and /proc; one that does not answer is None.

A read may fail in any way: the driver is not ready (EAGAIN), has no data (ENODATA), the chip is silent (EIO), the
file is a directory, or not ours to read. None of that is an error here: the answer is unknown.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["names_in", "read_bytes", "read_name", "read_number", "read_text"]

MAX_BYTES = 1 << 20
NAME_CHARACTERS = 80
LARGEST = 1 << 63  # a kernel's number fits 64 bits; what is larger is no measurement
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")


def read_bytes(path: Path) -> bytes | None:
    """Return the content of a file without NULs and white space at its ends; None where reading fails in any way."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read(descriptor).strip(b"\0 \t\r\n")
        finally:
            os.close(descriptor)
    except (OSError, ValueError):  # EAGAIN among them; a name that no file can have is a ValueError
        return None


def read_text(path: Path) -> str | None:
    """Return the content as text, with a mark in place of what is not UTF-8; None where reading fails in any way."""
    content = read_bytes(path)
    return None if content is None else content.decode("utf-8", "replace")


def read_name(path: Path) -> str | None:
    """Return a name that may stand in a sentence: printable, on one line, cut; None where there is none."""
    text = " ".join((read_text(path) or "").split())
    name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return name[:NAME_CHARACTERS] or None


def read_number(path: Path, *, least: int = -LARGEST, most: int = LARGEST) -> int | None:
    """Return the whole number in a file; None where there is none, or one outside `least` to `most`."""
    text = read_text(path)
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if least <= number <= most else None


def names_in(directory: Path) -> list[str]:
    """Return the names in a directory, sorted; none where it cannot be read."""
    try:
        return sorted(path.name for path in directory.iterdir())
    except (OSError, ValueError):
        return []


def _read(descriptor: int) -> bytes:
    """Read to the end, or as much as any file of the kernel's can hold: its pseudo files come in pieces."""
    content = b""
    while len(content) < MAX_BYTES and (piece := os.read(descriptor, MAX_BYTES - len(content))):
        content += piece
    return content
