"""The second copy of every example: a copy of the store, and the spool files that were read since it was made.

`back_up` makes the copy, and then removes those files. `open_or_replace` opens the store; where that is damaged it
makes a new one of the copy and of what can still be read of the damaged file (recovery.py), and the kept files are
read again. Interrupted anywhere, either begins again or goes on: STORE.recovered exists from the moment it is
complete until it is the store.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from edge_far.daemon.store.database import COMPANIONS, DatabaseDamaged, set_aside
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import FINISHED
from edge_far.daemon.store.kept import kept_size, read_kept_again, remove_kept
from edge_far.daemon.store.recovery import readable_examples
from edge_far.disk.directory_moves import fsync_directory
from edge_far.disk.durability import fsync
from edge_far.errors import StorageError
from edge_far.storage import storage_error

__all__ = ["back_up", "backup_path", "is_due", "open_or_replace"]

KEPT_FILES = 1000
KEPT_BYTES = 16 << 20


def backup_path(path: Path) -> Path:
    """Return where the copy of a store lies."""
    return path.with_name(path.name + ".backup")


def back_up(store: Store, path: Path, spool: Path) -> None:
    """Copy the store at `path`, then remove the spool files that the copy makes superfluous; StorageError (74)."""
    store.backup(backup_path(path))
    remove_kept(spool)


def is_due(spool: Path) -> bool:
    """Return whether so many spool files are kept that a copy should be made before a cycle has ended."""
    files, size = kept_size(spool)
    return files >= KEPT_FILES or size >= KEPT_BYTES


def open_or_replace(
    path: Path, spool: Path, *, held_out_share: float = 0.2, clock: Callable[[], float] = time.time
) -> tuple[Store, str | None]:
    """Open the store; recover one that is damaged or gone, with a note that says so."""
    recovered, reason = path.with_name(path.name + ".recovered"), "the database was damaged"
    if not recovered.exists():
        try:
            if path.exists() or not backup_path(path).exists():
                return Store(path, held_out_share=held_out_share, clock=clock), None
            reason = "the database is gone"
        except DatabaseDamaged as error:
            reason = error.message
        _recover(path, recovered, held_out_share, clock)
    try:
        read_kept_again(spool)
        kept = set_aside(path) if path.exists() else None
        recovered.rename(path)
        fsync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, path) from error
    store = Store(path, held_out_share=held_out_share, clock=clock)
    counts = store.counts()
    where = f"it is kept as {kept.name}, and " if kept else ""
    return store, f"{reason}; {where}{counts.examples + counts.set_aside} examples were recovered into a new store"


def _recover(path: Path, recovered: Path, held_out_share: float, clock: Callable[[], float]) -> None:
    """Make a new store under the name `recovered`, where it appears when it is complete."""
    unfinished = path.with_name(path.name + ".recovering")
    try:
        store = _copy_of_backup(backup_path(path), unfinished, held_out_share, clock)
        with closing(store):
            store.restore(readable_examples(path))
            with store.transaction():  # a cycle that was under way then: its files are another one's by now
                store.database.run(
                    "UPDATE cycles SET state = ?, outcome = 'discarded' WHERE state != ?", (FINISHED, FINISHED)
                )
        unfinished.rename(recovered)
        fsync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, recovered) from error


def _copy_of_backup(source: Path, target: Path, held_out_share: float, clock: Callable[[], float]) -> Store:
    """Return a store that is a copy of the backup; where that is missing or damaged, one of its readable rows."""
    _remove(target)
    if source.is_file():
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
            shutil.copyfileobj(reader, writer)
            writer.flush()
            fsync(writer.fileno(), target)
        try:
            return Store(target, held_out_share=held_out_share, clock=clock)
        except DatabaseDamaged:
            _remove(target)
    store = Store(target, held_out_share=held_out_share, clock=clock)
    try:
        store.restore(readable_examples(source))
    except StorageError:
        store.close()
        raise
    return store


def _remove(path: Path) -> None:
    for companion in COMPANIONS:
        path.with_name(path.name + companion).unlink(missing_ok=True)
