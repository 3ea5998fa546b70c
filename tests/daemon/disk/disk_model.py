"""What a disk may hold after the power failed, given what was written, renamed and synced before.

Two disks are modelled, both worse than most. Certain on either: a file's content up to its last fsync, and a name (or
its removal) up to the last fsync of its directory; a rename is one step and belongs to the directory it leads to.
    strict    nothing else survives: what POSIX promises, to the letter
    torn      of the rest, any operation may have survived or not, in no order, and of a write any of its sectors
    journal   as ext4: every name that was changed before any fsync is there, and so are some later ones in order; of
              content that was not synced, anything: a file may have its name and be empty
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.daemon.disk.disk_operations import (
    ROOT,
    Exchange,
    Link,
    Make,
    Operation,
    Rename,
    Sync,
    Times,
    Truncate,
    Unlink,
    Write,
)

__all__ = ["Crash", "Tree", "after_power_cut"]

Crash = Literal["strict", "torn", "journal"]
SECTOR = 512


@dataclass
class Tree:
    """The nodes of a disk and their names."""

    entries: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    content: dict[int, bytearray] = field(default_factory=dict)
    targets: dict[int, str] = field(default_factory=dict)
    modified_ns: dict[int, int] = field(default_factory=dict)

    def apply(self, operation: Operation) -> None:
        """Carry an operation out, as far as what it is about is there."""
        match operation:
            case Make(node, kind, target):
                if kind == "directory":
                    self.entries[node] = {}
                elif kind == "link":
                    self.targets[node] = target
                else:
                    self.content[node] = bytearray()
            case Link(directory, name, node):
                self.entries[directory][name] = node
            case Unlink(directory, name, node):
                self._forget(directory, name, node)
            case Rename(source, old, directory, name, node):
                self._forget(source, old, node)
                self.entries[directory][name] = node
            case Exchange(directory, first, node, second, other):
                self.entries[directory] |= {first: other, second: node}
            case Write(node, offset, data, time_ns):
                content = self.content[node]
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(data)] = data
                self.modified_ns[node] = time_ns
            case Truncate(node, size):
                content = self.content[node]
                del content[size:]
                content.extend(bytes(size - len(content)))
            case Times(node, modified_ns):
                self.modified_ns[node] = modified_ns
            case _:
                pass

    def _forget(self, directory: int, name: str, node: int) -> None:
        if self.entries[directory].get(name) == node:
            del self.entries[directory][name]

    def write_to(self, root: Path, directory: int = ROOT) -> None:
        """Make the files below an empty directory."""
        for name, node in self.entries[directory].items():
            path = root / name
            if node in self.entries:
                path.mkdir(mode=0o700)
                self.write_to(path, node)
            elif node in self.targets:
                path.symlink_to(self.targets[node])
            else:
                path.write_bytes(self.content[node])
                if (modified := self.modified_ns.get(node)) is not None:
                    os.utime(path, ns=(modified, modified))


def after_power_cut(
    operations: Sequence[Operation], cut: int, crash: Crash = "strict", chance: random.Random | None = None
) -> Tree:
    """Return what the disk holds when the power fails after the first `cut` operations."""
    chance = chance or random.Random(0)
    done = operations[:cut]
    synced: dict[int, int] = {}
    for index, operation in enumerate(done):
        if isinstance(operation, Sync):
            synced[operation.node] = index
    journal = chance.randint(max(synced.values(), default=0), cut) if crash == "journal" else 0
    share = chance.choice((0.1, 0.5, 0.9))
    tree = Tree()
    for index, operation in enumerate(done):
        node = _made_durable_by(operation)
        if node is None or index < synced.get(node, -1):
            tree.apply(operation)
        elif crash == "journal" and not isinstance(operation, Write | Truncate | Times):
            if index < journal:
                tree.apply(operation)
        elif crash != "strict" and chance.random() < share:
            for part in _torn(operation, chance):
                tree.apply(part)
    return tree


def _made_durable_by(operation: Operation) -> int | None:
    """Return the node whose fsync makes an operation durable; None for one that has no effect of its own."""
    match operation:
        case Link(directory) | Unlink(directory) | Exchange(directory):
            return directory
        case Rename(directory=directory):
            return directory
        case Write(node) | Truncate(node) | Times(node):
            return node
        case _:
            return None


def _torn(operation: Operation, chance: random.Random) -> list[Operation]:
    """Return an operation as it is, or some sectors of a write."""
    if not isinstance(operation, Write) or chance.random() < 0.5:
        return [operation]
    parts: list[Operation] = []
    begin = 0
    while begin < len(operation.data):
        end = begin + SECTOR - (operation.offset + begin) % SECTOR
        if chance.random() < 0.5:
            parts.append(Write(operation.node, operation.offset + begin, operation.data[begin:end], operation.time_ns))
        begin = end
    return parts
