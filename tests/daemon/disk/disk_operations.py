"""What can be done to the files of one directory, as a recorder tells it and a model of a disk carries it out.

Files and directories are numbered nodes, whatever they are called; ROOT is the directory itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "ROOT",
    "Exchange",
    "Link",
    "Make",
    "Mark",
    "Operation",
    "Rename",
    "Sync",
    "Times",
    "Truncate",
    "Unlink",
    "Write",
]

ROOT = 0


@dataclass(frozen=True)
class Make:
    """A new node: 'file', 'directory' or 'link' (with its target); it has no name yet."""

    node: int
    kind: str
    target: str = ""


@dataclass(frozen=True)
class Link:
    """A name for a node."""

    directory: int
    name: str
    node: int


@dataclass(frozen=True)
class Unlink:
    """A name goes; `node` is what it named."""

    directory: int
    name: str
    node: int


@dataclass(frozen=True)
class Rename:
    """A node gets another name in one step."""

    source: int
    old: str
    directory: int
    name: str
    node: int


@dataclass(frozen=True)
class Exchange:
    """Two names swap their nodes in one step; `first` named `node`, `second` named `other`."""

    directory: int
    first: str
    node: int
    second: str
    other: int


@dataclass(frozen=True)
class Write:
    """Bytes at an offset of a file, and when (ns since 1970)."""

    node: int
    offset: int
    data: bytes
    time_ns: int = 0


@dataclass(frozen=True)
class Truncate:
    """A file gets a size."""

    node: int
    size: int


@dataclass(frozen=True)
class Times:
    """A file's date is set (ns since 1970)."""

    node: int
    modified_ns: int


@dataclass(frozen=True)
class Sync:
    """fsync or fdatasync of a file or a directory."""

    node: int


@dataclass(frozen=True)
class Mark:
    """What the workload said here."""

    document: Any


Operation = Make | Link | Unlink | Rename | Exchange | Write | Truncate | Times | Sync | Mark
