"""One SQLite connection that is durable at every commit, and whose failures are EdgeFarErrors.

Refuses to know the tables beyond applying their migrations. A commit has reached the storage device when it
returns (WAL with synchronous=FULL). A damaged file is reported, and set aside on request, never deleted.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edge_far.disk.directory_moves import fsync_directory
from edge_far.disk.durability import fsync
from edge_far.errors import ConfigError, StorageError
from edge_far.process.limits import few_files
from edge_far.storage import storage_error

__all__ = ["COMPANIONS", "Database", "DatabaseDamaged", "set_aside"]

BUSY_TIMEOUT_S = 10.0
APPLICATION_ID = 0x65666172  # "efar"
COMPANIONS = ("", "-wal", "-shm")


class DatabaseDamaged(StorageError):
    """The database file is not readable as one; its content must be set aside before a new one is made."""


class Database:
    """A connection; every method raises StorageError (74), or DatabaseDamaged if the content is wrong."""

    def __init__(self, path: Path, migrations: Sequence[str], *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self.path = Path(path)
        self._migrations = migrations
        self._busy_timeout_s = busy_timeout_s
        if not _exists(self.path):
            _create(self.path, migrations)
        self._connection = self._connect(self.path)

    def close(self) -> None:
        """Close the connection; a transaction under way is rolled back."""
        with self._errors():
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block as one transaction: durable when the block ends, undone when it raises."""
        with self._errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite undoes some failures itself: a full disk
                    self._connection.execute("ROLLBACK")
                raise

    def run(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Execute one statement and return how many rows it changed."""
        with self._errors(), closing(self._connection.execute(statement, values)) as cursor:
            return cursor.rowcount

    def row(self, statement: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, or None."""
        with self._errors(), closing(self._connection.execute(statement, values)) as cursor:
            found: tuple[Any, ...] | None = cursor.fetchone()
            return found

    def rows(self, statement: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query one by one."""
        with self._errors(), closing(self._connection.execute(statement, values)) as cursor:
            yield from cursor

    def shrink(self) -> None:
        """Give the pages of removed rows back to the file system; not inside a transaction."""
        with self._errors():  # executescript() steps through all pages, execute() frees only one
            self._connection.executescript("PRAGMA incremental_vacuum;")

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy to `path`, which is replaced in one step; not inside a transaction."""
        temporary = path.with_name(path.name + ".new")
        try:
            temporary.unlink(missing_ok=True)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            with self._errors():
                self._connection.execute("VACUUM INTO CAST(? AS TEXT)", (os.fsencode(temporary),))
            with temporary.open("rb") as file:
                fsync(file.fileno(), path)
            temporary.replace(path)
            fsync_directory(path.parent)
        except OSError as error:
            raise storage_error(error, path) from error

    def _connect(self, path: Path) -> sqlite3.Connection:
        with self._errors():
            self._connection = sqlite3.connect(path, timeout=self._busy_timeout_s, isolation_level=None)
            try:
                if path.stat().st_size == 0:  # it is created under another name and complete when it appears
                    raise _damaged(path, "the file is empty")
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")
                self._connection.execute("PRAGMA secure_delete=ON")  # a removed text leaves no trace
                self._check()
                self._migrate()
            except BaseException:
                self._connection.close()
                raise
        return self._connection

    def _check(self) -> None:
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise _damaged(self.path, str(found[0]) if found else "no answer to quick_check")
        (application,) = self._connection.execute("PRAGMA application_id").fetchone()
        if application not in (0, APPLICATION_ID):
            raise ConfigError(
                "is a database of another application",
                where=str(self.path),
                hint="choose another state directory",
            )

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        known = len(self._migrations)
        if version > known:
            raise ConfigError(
                f"was written by a newer edge-far (schema {version}, this one knows {known})",
                where=str(self.path),
                hint="install that version again, or a newer one",
            )
        if version < known:
            _migrate(self._connection, self._migrations, version)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translated(self.path, error) from error


def set_aside(path: Path) -> Path:
    """Rename a damaged database and its companions to `NAME.corrupt-N`; return the new name."""
    path = Path(path)
    number = 1
    while path.with_name(f"{path.name}.corrupt-{number}").exists():
        number += 1
    target = path.with_name(f"{path.name}.corrupt-{number}")
    try:
        # The companions first: were the process killed in between, a new database must not meet an old log.
        for companion in reversed(COMPANIONS):
            source = path.with_name(path.name + companion)
            if source.exists():
                source.rename(target.with_name(target.name + companion))
        fsync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    return target


def _exists(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise storage_error(error, path) from error
    if not stat.S_ISREG(mode):
        raise StorageError("is not a regular file", where=str(path), hint="put the database itself there")
    return True


def _create(path: Path, migrations: Sequence[str]) -> None:
    """Make an empty database that only its owner may read; it appears under its name when it is complete."""
    temporary = path.with_name(path.name + ".new")
    try:
        for companion in COMPANIONS:
            temporary.with_name(temporary.name + companion).unlink(missing_ok=True)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # must precede the first table
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute("PRAGMA synchronous=FULL")
            _migrate(connection, migrations, 0)
        temporary.rename(path)
        fsync_directory(path.parent)
    except sqlite3.Error as error:
        raise _translated(path, error) from error
    except OSError as error:
        raise storage_error(error, path) from error


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], version: int) -> None:
    """Apply the migrations after the first `version`, as one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[version:]:
            for statement in _statements(migration):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """Split a migration into statements, without executescript(), which would commit the transaction."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _damaged(path: Path, reason: str) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"the database is damaged: {reason}",
        where=str(path),
        hint="the daemon sets it aside and recovers what can be read",
    )


def _translated(path: Path, error: sqlite3.Error) -> StorageError:
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF
    where = str(path)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            "the store is locked by another process", where=where, hint="wait for it to end, then try again"
        )
    # Where not even the shared-memory file can grow, SQLite speaks of an I/O error.
    if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
        return StorageError("cannot write: no space left", where=where, hint="free some space there")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        hint = "run the command as the owner of the state directory; install.sh gives the service all files again"
        hint = (code == sqlite3.SQLITE_CANTOPEN and few_files()) or hint
        return StorageError(f"cannot write: {error}", where=where, hint=hint)
    return StorageError(f"the database failed: {error}", where=where, hint="look in the kernel log for I/O errors")
