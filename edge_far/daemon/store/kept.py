"""The daemon's own directories in a spool: files under way, and files kept until there is a second copy of the store.

Others may write into a spool, so every directory is opened by descriptor and must belong to the daemon alone. What is
kept is the second copy of what was read since the last backup (backup.py). Refuses to know what a file holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_far.disk.durability import fsync
from edge_far.errors import ConfigError
from edge_far.storage import storage_error

__all__ = ["INGEST", "KEPT", "kept_size", "names_in", "opened", "read_kept_again", "remove_kept"]

INGEST, KEPT = ".ingest", ".kept"


def kept_size(spool: Path) -> tuple[int, int]:
    """Return how many files are kept below a spool, and their bytes; StorageError (74), ConfigError (78)."""
    with _kept(spool) as (_, kept):
        sizes = [os.stat(name, dir_fd=kept, follow_symlinks=False).st_size for name in names_in(kept)]
    return len(sizes), sum(sizes)


def remove_kept(spool: Path) -> None:
    """Remove the files that were kept; StorageError (74), ConfigError (78)."""
    with _kept(spool) as (_, kept):
        for name in names_in(kept):
            os.unlink(name, dir_fd=kept)


def read_kept_again(spool: Path) -> None:
    """Let the next pass read the kept files again, before all others: their numbers are the lowest."""
    with _kept(spool) as (ingest, kept):
        for name in names_in(kept):
            os.rename(name, name, src_dir_fd=kept, dst_dir_fd=ingest)
        fsync(ingest, spool)


@contextmanager
def _kept(spool: Path) -> Iterator[tuple[int, int]]:
    """Open the directories of files under way and of files that are kept."""
    with opened(spool, INGEST, KEPT) as (_, ingest, kept):
        try:
            yield ingest, kept
        except OSError as error:
            raise storage_error(error, spool) from error


@contextmanager
def opened(spool: Path, *names: str) -> Iterator[list[int]]:
    """Open the spool, and directories of the daemon's own in it; StorageError (74), ConfigError (78)."""
    opened: list[int] = []
    try:
        try:
            opened.append(_open_directory(spool, None))
            for name in names:
                opened.append(_private_directory(spool, opened[0], name))
        except OSError as error:
            raise storage_error(error, spool) from error
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _private_directory(spool: Path, top: int, name: str) -> int:
    """Open or make a directory of the daemon's own in the spool, where others may write."""
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=top)
    descriptor = _open_directory(Path(name), top)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        os.close(descriptor)
        raise ConfigError(
            f"'{name}' belongs to someone else or others may write to it",
            where=str(spool),
            hint="remove that directory after looking into it",
        )
    return descriptor


def names_in(directory: int) -> list[str]:
    """Return the names in an open directory."""
    return os.listdir(directory)


def _open_directory(path: Path, parent: int | None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
