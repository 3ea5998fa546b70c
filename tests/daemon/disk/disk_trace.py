"""What processes did to the files of one directory, recorded by strace and read back as a list of operations.

    trace = record(["python", "workload.py", ...], directory, marks)

Names are resolved while reading, so an operation is about a file or a directory by number, whatever it is called
later. `marks` is a file outside the directory; what the workload writes to it, one JSON document a line, appears
between the operations, where it was written: "from here on this must survive". Files that are mapped into memory
(SQLite's -shm) are recorded without what is written through the mapping, which SQLite makes anew after a crash.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.daemon.disk.disk_operations import (
    ROOT,
    Exchange,
    Link,
    Make,
    Mark,
    Operation,
    Rename,
    Sync,
    Times,
    Truncate,
    Unlink,
    Write,
)

__all__ = ["parse", "record"]

CALLS = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "truncate"),
    *("fallocate", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("rmdir", "mkdir", "mkdirat", "fsync", "fdatasync", "utimensat", "lseek", "copy_file_range", "sendfile"),
    *("clone", "clone3", "fork", "vfork"),
)
WRITE_BYTES = 1 << 24  # of one write; strace shortens longer ones, which is noticed


def record(
    command: Sequence[str | Path], directory: Path, marks: Path, *, environment: dict[str, str]
) -> list[Operation]:
    """Run a command under strace, which follows its children; RuntimeError where either fails."""
    output = marks.with_suffix(".strace")
    prefix = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-ttt", "-xx", "-s", str(WRITE_BYTES), "-o", output]
    done = subprocess.run(
        [*prefix, "-e", f"trace={','.join(CALLS)}", "-e", "signal=none", *command],
        **{"capture_output": True, "text": True, "env": environment, "check": False},
    )
    if done.returncode:
        raise RuntimeError(f"the workload ended with {done.returncode}: {done.stdout}{done.stderr}")
    with output.open(encoding="ascii") as lines:
        return parse(lines, directory, marks)


def parse(lines: Iterable[str], directory: Path, marks: Path) -> list[Operation]:
    """Return the operations below `directory` of strace's output (-f -y -ttt -xx), which must have been empty."""
    reader = _Reader(os.fspath(directory), os.fspath(marks))
    for line in _whole(lines):
        reader.take(line)
    return reader.operations


_LINE = re.compile(r"(\d+) +(\d+)\.(\d+) (\w+)\((.*)\) += (-?\d+|\?)")
_START = re.compile(r"(\d+) +[\d.]+ (.*) <unfinished \.\.\.>$")
_REST = re.compile(r"(\d+) +([\d.]+) <\.\.\. \w+ resumed>(.*)$")
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})*")
_DESCRIPTOR = re.compile(r"(?:(\d+)|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Put calls together that strace tells in two parts because another process spoke in between."""
    open_calls: dict[str, str] = {}
    for raw in lines:
        line = raw.rstrip("\n")
        if found := _START.match(line):
            open_calls[found[1]] = found[2]
        elif found := _REST.match(line):
            yield f"{found[1]} {found[2]} {open_calls.pop(found[1], '')}{found[3]}"
        else:
            yield line


def _text(quoted: str) -> str:
    return _bytes(quoted).decode("utf-8", "surrogateescape")


def _bytes(quoted: str) -> bytes:
    return bytes.fromhex(quoted.rstrip(".").strip('"').replace("\\x", ""))


class _Reader:
    """Keeps the directory tree as the processes saw it, to know what each name means."""

    def __init__(self, root: str, marks: str) -> None:
        self.operations: list[Operation] = []
        self._root, self._marks = root, marks
        self._entries: dict[int, dict[str, int]] = {ROOT: {}}
        self._sizes: dict[int, int] = {}
        self._next = ROOT + 1
        self._offsets: dict[tuple[str, str], int] = {}
        self._process: dict[str, str] = {}  # of a thread
        self._marked = b""

    def take(self, line: str) -> None:
        found = _LINE.match(line)
        if not found or found[6] == "?" or int(found[6]) < 0:
            return
        thread, seconds, fraction, call, arguments, result = found.groups()
        self._thread, self._pid = thread, self._process.get(thread, thread)
        self._now_ns = int(seconds) * 10**9 + int(fraction.ljust(9, "0"))
        handler = getattr(self, f"_{call}", None)
        if handler is None:
            raise ValueError(f"strace told of {call}, which is not understood")
        self._line = line
        handler(_split(arguments), int(result))

    # --- names -----------------------------------------------------------------------------------------------

    def _inside(self, path: str) -> list[str] | None:
        """Return the parts of a path below the root, or None for one that is elsewhere."""
        path = os.path.normpath(path)
        if path == self._root:
            return []
        prefix = self._root + "/"
        return path[len(prefix) :].split("/") if path.startswith(prefix) else None

    def _at(self, descriptor: str | None, name: str) -> str:
        """Return the absolute path of a name relative to a directory's descriptor."""
        path = _text(name)
        if path.startswith("/"):
            return path
        if descriptor is None:
            raise ValueError(f"a relative path without its directory: {self._line[:200]}")
        return f"{_path_of(descriptor)}/{path}"

    def _node(self, path: str) -> int | None:
        """Return the node of a path, or None where it is not below the root."""
        parts = self._inside(path)
        if parts is None:
            return None
        node = ROOT
        for part in parts:
            found = self._entries.get(node, {}).get(part)
            if found is None:
                return None
            node = found
        return node

    def _parent(self, path: str) -> tuple[int, str] | None:
        parts = self._inside(path)
        if not parts:
            return None
        node = self._node("/".join([self._root, *parts[:-1]]))
        if node is None:
            raise ValueError(f"a name in an unknown directory: {path}")
        return node, parts[-1]

    def _make(self, path: str, kind: str, target: str = "") -> None:
        place = self._parent(path)
        if place is None:
            return
        node, self._next = self._next, self._next + 1
        if kind == "directory":
            self._entries[node] = {}
        self._sizes[node] = 0
        self._entries[place[0]][place[1]] = node
        self.operations += [Make(node, kind, target), Link(*place, node)]

    def _of(self, descriptor: str) -> int | None:
        """Return the node that a descriptor is open on."""
        found = _DESCRIPTOR.fullmatch(descriptor)
        if found is None or found[3]:
            return None
        return self._node(_text(found[2]))

    # --- calls that change names -----------------------------------------------------------------------------

    def _openat(self, arguments: list[str], result: int) -> None:
        self._opened(self._at(arguments[0], arguments[1]), arguments[2], result)

    def _open(self, arguments: list[str], result: int) -> None:
        path = _text(arguments[0])
        if path.startswith("/"):
            self._opened(path, arguments[1], result)

    def _creat(self, arguments: list[str], result: int) -> None:
        self._opened(self._at(None, arguments[0]), "O_WRONLY|O_CREAT|O_TRUNC", result)

    def _opened(self, path: str, flags: str, descriptor: int) -> None:
        known = set(flags.split("|"))
        if self._inside(path) is None or known & {"O_DIRECTORY", "O_PATH"}:
            return
        node = self._node(path)
        if node is None:
            if "O_CREAT" not in known:
                return
            self._make(path, "file")
        elif "O_TRUNC" in known and self._sizes[node]:
            self._sizes[node] = 0
            self.operations.append(Truncate(node, 0))
        if not known & {"O_APPEND"}:
            self._offsets[self._pid, str(descriptor)] = 0
        else:
            self._offsets.pop((self._pid, str(descriptor)), None)

    def _mkdir(self, arguments: list[str], result: int) -> None:
        self._make(self._at(None, arguments[0]), "directory")

    def _mkdirat(self, arguments: list[str], result: int) -> None:
        self._make(self._at(arguments[0], arguments[1]), "directory")

    def _symlink(self, arguments: list[str], result: int) -> None:
        self._make(self._at(None, arguments[1]), "link", _text(arguments[0]))

    def _symlinkat(self, arguments: list[str], result: int) -> None:
        self._make(self._at(arguments[1], arguments[2]), "link", _text(arguments[0]))

    def _unlink(self, arguments: list[str], result: int) -> None:
        self._removed(self._at(None, arguments[0]))

    _rmdir = _unlink

    def _unlinkat(self, arguments: list[str], result: int) -> None:
        self._removed(self._at(arguments[0], arguments[1]))

    def _removed(self, path: str) -> None:
        place = self._parent(path)
        if place is not None:
            node = self._entries[place[0]].pop(place[1])
            self.operations.append(Unlink(*place, node))

    def _rename(self, arguments: list[str], result: int) -> None:
        self._renamed(self._at(None, arguments[0]), self._at(None, arguments[1]), "0")

    def _renameat(self, arguments: list[str], result: int) -> None:
        self._renamed(self._at(arguments[0], arguments[1]), self._at(arguments[2], arguments[3]), "0")

    def _renameat2(self, arguments: list[str], result: int) -> None:
        self._renamed(self._at(arguments[0], arguments[1]), self._at(arguments[2], arguments[3]), arguments[4])

    def _renamed(self, old: str, new: str, flags: str) -> None:
        if (self._inside(old) is None) != (self._inside(new) is None):
            raise ValueError(f"a rename over the directory's border: {old} -> {new}")
        source, target = self._parent(old), self._parent(new)
        if source is None or target is None:
            return
        node = self._entries[source[0]][source[1]]
        if "RENAME_EXCHANGE" in flags:
            other = self._entries[target[0]][target[1]]
            if source[0] != target[0]:
                raise ValueError("an exchange between two directories is not understood")
            self._entries[source[0]] |= {source[1]: other, target[1]: node}
            self.operations.append(Exchange(source[0], source[1], node, target[1], other))
            return
        del self._entries[source[0]][source[1]]
        self._entries[target[0]][target[1]] = node
        self.operations.append(Rename(*source, *target, node))

    def _link(self, arguments: list[str], result: int) -> None:
        raise ValueError(f"hard links are not understood: {self._line[:200]}")

    _linkat = _link

    # --- calls that change content ---------------------------------------------------------------------------

    def _write(self, arguments: list[str], result: int) -> None:
        if _path_of(arguments[0]) == self._marks:
            self._marked += _bytes(arguments[1])
            while b"\n" in self._marked:
                line, self._marked = self._marked.split(b"\n", 1)
                self.operations.append(Mark(json.loads(line)))
            return
        node = self._of(arguments[0])
        if node is not None:
            key = self._pid, arguments[0].split("<")[0]
            offset = self._offsets.get(key, self._sizes[node])  # unknown: inherited, or opened to append
            self._written(node, offset, _bytes(arguments[1]), result)
            if key in self._offsets:
                self._offsets[key] = offset + result

    def _pwrite64(self, arguments: list[str], result: int) -> None:
        node = self._of(arguments[0])
        if node is not None:
            self._written(node, int(arguments[3]), _bytes(arguments[1]), result)

    def _written(self, node: int, offset: int, data: bytes, written: int) -> None:
        if len(data) < written:
            raise ValueError(f"a write of {written} bytes is longer than what is recorded")
        self._sizes[node] = max(self._sizes[node], offset + written)
        self.operations.append(Write(node, offset, data[:written], self._now_ns))

    def _sendfile(self, arguments: list[str], result: int) -> None:
        """Take over a copy of a file from elsewhere, whose content is assumed not to change."""
        node, source = self._of(arguments[0]), _path_of(arguments[1]) or ""
        if node is None or not result:
            return
        if self._inside(source) is not None or not (begin := re.match(r"\[(\d+)\]", arguments[2])):
            raise ValueError(f"not understood: {self._line[:200]}")
        key = self._pid, arguments[0].split("<")[0]
        with Path(source).open("rb") as file:
            file.seek(int(begin[1]))
            self._written(node, self._offsets[key], file.read(result), result)
        self._offsets[key] += result

    def _lseek(self, arguments: list[str], result: int) -> None:
        if self._of(arguments[0]) is not None:
            key = self._pid, arguments[0].split("<")[0]
            if key in self._offsets:
                self._offsets[key] = result

    def _ftruncate(self, arguments: list[str], result: int) -> None:
        node = self._of(arguments[0])
        if node is not None:
            self._sizes[node] = int(arguments[1])
            self.operations.append(Truncate(node, int(arguments[1])))

    def _utimensat(self, arguments: list[str], result: int) -> None:
        node = self._of(arguments[0]) if arguments[1] == "NULL" else self._node(self._at(arguments[0], arguments[1]))
        seconds = re.findall(r"tv_sec=(\d+), tv_nsec=(\d+)", self._line)
        if node is not None and len(seconds) == 2:
            self.operations.append(Times(node, int(seconds[1][0]) * 10**9 + int(seconds[1][1])))

    def _fsync(self, arguments: list[str], result: int) -> None:
        node = self._of(arguments[0])
        if node is not None:
            self.operations.append(Sync(node))

    _fdatasync = _fsync

    def _not_understood(self, arguments: list[str], result: int) -> None:
        if any(self._of(argument) is not None for argument in arguments):
            raise ValueError(f"not understood: {self._line[:200]}")

    _writev = _pwritev = _pwritev2 = _fallocate = _copy_file_range = _not_understood

    def _truncate(self, arguments: list[str], result: int) -> None:
        if self._node(self._at(None, arguments[0])) is not None:
            raise ValueError(f"not understood: {self._line[:200]}")

    # --- processes -------------------------------------------------------------------------------------------

    def _clone(self, arguments: list[str], result: int) -> None:
        """Threads share their process's descriptors; a new process starts with offsets that are not known."""
        if "CLONE_THREAD" in self._line:
            self._process[str(result)] = self._pid

    _clone3 = _fork = _vfork = _clone


def _path_of(descriptor: str) -> str | None:
    found = _DESCRIPTOR.fullmatch(descriptor)
    return _text(found[2]) if found else None


def _split(arguments: str) -> list[str]:
    """Split a call's arguments at the commas outside of brackets; strings are hexadecimal and hold none."""
    parts, depth, current = [], 0, ""
    for piece in re.split(r"([\[\]{}(),])", arguments):
        if piece == "," and not depth:
            parts.append(current.strip())
            current = ""
            continue
        depth += (piece in ("[", "{", "(")) - (piece in ("]", "}", ")"))
        current += piece
    return [*parts, current.strip()]
