"""Rows of bytes by their 32-byte keys in one SQLite file: bounded, checksummed, shared by processes.

A row is written in a transaction, so a process that is killed leaves whole rows or none. Each carries a checksum of
key and content: a damaged one counts as missing and is written anew. A file that is damaged as a whole is replaced by
an empty one. A disk that is full, or the bound, ends storing and nothing else: what is not here is computed again.
The bound alone lets other rows go first, the oldest before all.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from edge_far.errors import StorageError

__all__ = ["RowDatabase"]

BUSY_TIMEOUT_S = 10.0
PAGE_BYTES = 4096
CACHED_KIB = 512  # of SQLite's own page cache; the system's serves the rest
COMPANIONS = ("", "-wal", "-shm")
ASKED_AT_ONCE = 256
SCHEMA = """
PRAGMA page_size = 4096;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, checksum INTEGER NOT NULL, data BLOB NOT NULL);
"""


class RowDatabase:
    """The rows of one file; at most `limit_bytes` of it are used."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        """Open or make the file; raises StorageError where it cannot be."""
        self.path = Path(path)
        self.limit_bytes = limit_bytes
        self.full = False
        self._connection = self._open()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return which of the keys have a row; its content is not looked at."""
        found: set[bytes] = set()
        for part in _parts(keys):
            marks = ",".join("?" * len(part))
            found |= {key for (key,) in self._ask(f"SELECT key FROM rows WHERE key IN ({marks})", part)}
        return found

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the sound rows among those of `keys`."""
        found: dict[bytes, bytes] = {}
        for part in _parts(keys):
            marks = ",".join("?" * len(part))
            for key, checksum, data in self._ask(f"SELECT key, checksum, data FROM rows WHERE key IN ({marks})", part):
                if isinstance(data, bytes) and checksum == _checksum(key, data):
                    found[key] = data
        return found

    def write(self, rows: Mapping[bytes, bytes]) -> bool:
        """Write rows in one transaction; return False where the bound or the disk left no room for them."""
        size = _size(rows)
        if self.full or self.used_bytes() + size > self.limit_bytes:
            self.full = True
            return False
        try:
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO rows VALUES (?, ?, ?)",
                    [(key, _checksum(key, data), data) for key, data in rows.items()],
                )
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                self.full = True  # no room, a read-only file, another process that does not end
            else:
                self._start_over()
            return False
        return True

    def make_room(self, rows: Mapping[bytes, bytes], kept: Set[bytes], own: bytes) -> bool:
        """Remove other rows than `kept` until `rows` fit within the bound; return whether they do now.

        Rows whose key does not begin with `own` go first, the oldest first; then the oldest of the others. Where the
        bound is not what they lack, nothing goes. Each removal is a transaction of its own.
        """
        size = _size(rows)
        if size > self.limit_bytes or self.used_bytes() + size <= self.limit_bytes:
            return False
        for others in (True, False):
            while (lacking := self.used_bytes() + size - self.limit_bytes) > 0:
                gone = self._oldest(lacking, kept, own, others)
                if not gone:
                    break
                try:
                    with self._connection:
                        self._connection.executemany("DELETE FROM rows WHERE key = ?", gone)
                except sqlite3.OperationalError:
                    return False  # another process writes and does not end, or the disk has no room for the log
                except sqlite3.DatabaseError:
                    self._start_over()
        self.full = self.used_bytes() + size > self.limit_bytes
        return not self.full

    def _oldest(self, wanted: int, kept: Set[bytes], own: bytes, others: bool) -> list[tuple[bytes]]:
        """Return the oldest rows of about `wanted` bytes, of those that begin with `own` or of the `others`."""
        found: list[tuple[bytes]] = []
        try:
            cursor = self._connection.execute("SELECT key, length(data) FROM rows ORDER BY rowid")
            with closing(cursor):
                for key, size in cursor:
                    if wanted <= 0:
                        break
                    if key not in kept and (not key.startswith(own)) == others:
                        found.append((key,))
                        wanted -= size
        except sqlite3.OperationalError:
            return []
        except sqlite3.DatabaseError:
            self._start_over()
            return []
        return found

    def keep_only(self, keys: Iterable[bytes]) -> int:
        """Remove every row but those of `keys`, and give their place back to the file system; return how many."""
        wanted = set(keys)
        gone = [(key,) for (key,) in self._ask("SELECT key FROM rows", ()) if key not in wanted]
        if not gone:
            return 0
        try:
            with self._connection:
                self._connection.executemany("DELETE FROM rows WHERE key = ?", gone)
            self._connection.executescript("PRAGMA incremental_vacuum")  # execute() would free one page alone
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.DatabaseError:
            self._start_over()  # what must go goes, if need be with everything else
        self.full = False
        return len(gone)

    def used_bytes(self) -> int:
        """Return the size of what the file holds."""
        with suppress(sqlite3.DatabaseError):
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            return (int(pages) - int(free)) * PAGE_BYTES
        return 0

    def _ask(self, query: str, values: Sequence[bytes]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.OperationalError as error:
            raise StorageError(f"the activation cache cannot be read: {error}", where=str(self.path)) from error
        except sqlite3.DatabaseError:
            self._start_over()
            return []

    def _open(self) -> sqlite3.Connection:
        try:
            try:
                return self._connect()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:
                self._remove()
                return self._connect()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"the activation cache cannot be opened: {error}", where=str(self.path)) from error

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.touch(mode=0o600)
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S)
        try:
            connection.executescript(SCHEMA)
            connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last rows, never the file
            connection.execute("PRAGMA secure_delete = ON")  # a text that goes leaves nothing behind
            connection.execute(f"PRAGMA cache_size = -{CACHED_KIB}")
            connection.execute("SELECT key, checksum, data FROM rows LIMIT 1").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _start_over(self) -> None:
        """Replace a damaged file by an empty one."""
        self._connection.close()
        self._remove()
        self._connection = self._open()
        self.full = False

    def _remove(self) -> None:
        for companion in COMPANIONS:
            self.path.with_name(self.path.name + companion).unlink(missing_ok=True)


def _size(rows: Mapping[bytes, bytes]) -> int:
    return sum(len(data) + PAGE_BYTES // 8 for data in rows.values())


def _checksum(key: bytes, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(key))


def _parts(keys: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    for start in range(0, len(keys), ASKED_AT_ONCE):
        yield keys[start : start + ASKED_AT_ONCE]
