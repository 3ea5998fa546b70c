"""Files and directories that are either complete or not there: temporary sibling, fsync, rename.

Standard library only. Refuses to know what is in the files. After a crash or a power cut at any instruction a
reader finds the old content or the new one; what a killed process left behind has a name that starts with
`.TARGET.` and ends with `.tmp`, and `remove_leftovers` clears it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edge_far.errors import InputMissing, OutputExists, StorageError

__all__ = [
    "fsync_directory",
    "publish_directory",
    "remove_leftovers",
    "replace_directory",
    "sha256_of",
    "staged_directory",
    "storage_error",
    "write_atomically",
    "write_json",
]

READ_BYTES = 1 << 20
AT_FDCWD = -100
RENAME_EXCHANGE = 2

HINTS = {
    errno.ENOSPC: "free space on this file system or choose another directory, then run the command again",
    errno.EDQUOT: "free space within the disk quota or choose another directory, then run the command again",
    errno.EROFS: "the file system is read-only: mount it writable or choose another directory",
    errno.EACCES: "check the owner and the mode of the directory",
    errno.EPERM: "check the owner and the mode of the directory",
    errno.ENOENT: "create the directory first",
    errno.EIO: "the storage device reports errors: check the kernel log, replace a failing card",
}


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the StorageError (exit 74) that says in one line what failed on `path` and what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    hint = HINTS.get(error.errno or 0, "check the directory and the storage device, then run the same command again")
    return StorageError(f"cannot write: {reason}", where=str(path), hint=hint)


def write_atomically(path: Path, data: bytes | Callable[[BinaryIO], None]) -> None:
    """Replace the content of `path` by `data`, which is bytes or a function that writes to an open file.

    On any failure the temporary file is removed and the old content is intact.
    Raises StorageError when the operating system refuses; what the function itself raises passes through.
    """
    path = Path(path)
    temporary = _temporary_sibling(path)
    try:
        with temporary.open("xb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        _discard(temporary)
        raise storage_error(error, path) from error
    except BaseException:
        _discard(temporary)
        raise


def write_json(path: Path, document: object) -> None:
    """Replace `path` atomically by `document` as indented JSON; NaN and infinity are a ValueError."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode("utf-8"))


def fsync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_directory(temporary: Path, final: Path) -> None:
    """Rename the complete directory `temporary` to `final`, which must not exist or be empty.

    On any failure `temporary` is removed. Raises OutputExists (73) or StorageError (74).
    """
    with _discarding(temporary, final):
        _fsync_tree(temporary)
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise OutputExists(
                    "exists already and is not empty",
                    where=str(final),
                    hint="choose another directory or remove it",
                ) from error
            raise
        fsync_directory(final.parent)


def replace_directory(temporary: Path, final: Path) -> None:
    """Put the complete directory `temporary` in the place of `final`, whether that exists or not.

    The two are exchanged in one step where the file system can (renameat2), so that `final` always names a
    complete directory; elsewhere the old one is first renamed to `.NAME.old`, and `remove_leftovers` brings
    it back if the process was killed between the two renames. On any failure `temporary` is removed and the
    old content is intact. Raises StorageError.
    """
    with _discarding(temporary, final):
        _fsync_tree(temporary)
        if not final.is_dir():
            temporary.rename(final)
        elif not _exchange(temporary, final):
            _replace_in_two_renames(temporary, final)
        fsync_directory(final.parent)
    _discard(temporary)  # after an exchange it holds the old content


@contextmanager
def staged_directory(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new empty directory beside `final` that takes its place when the block ends without an error.

    With `replace` an existing `final` is replaced; without, it is an OutputExists (73), raised before the
    block runs. A failure inside the block removes the directory; an OSError becomes a StorageError (74).
    """
    final = Path(final)
    if not replace and final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise OutputExists(
            "exists already and is not empty", where=str(final), hint="choose another directory or remove it"
        )
    temporary = _temporary_sibling(final)
    with _discarding(temporary, final):
        temporary.mkdir()
        yield temporary
        (replace_directory if replace else publish_directory)(temporary, final)


def remove_leftovers(final: Path) -> None:
    """Clear what a killed process left beside `final`; a half-done replacement is undone."""
    final = Path(final)
    old = final.with_name(f".{final.name}.old")
    try:
        if old.is_dir() and not final.exists():
            old.rename(final)
        for leftover in [old, *final.parent.glob(f".{_glob_escape(final.name)}.*.tmp")]:
            _discard(leftover)
    except OSError as error:
        raise storage_error(error, final) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces; InputMissing (66), StorageError (74)."""
    digest = hashlib.sha256()
    try:
        with Path(path).open("rb") as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
    except FileNotFoundError as error:
        raise InputMissing("file does not exist", where=str(path)) from error
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error
    return digest.hexdigest()


def _temporary_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _glob_escape(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _discard(path: Path) -> None:
    """Remove a file or a directory tree; a failure to do so never hides the error that led here."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _discarding(temporary: Path, final: Path) -> Iterator[None]:
    """Remove `temporary` on any failure and turn an OSError into a StorageError about `final`."""
    try:
        yield
    except OSError as error:
        _discard(temporary)
        raise storage_error(error, final) from error
    except BaseException:
        _discard(temporary)
        raise


def _fsync_tree(top: Path) -> None:
    """Make every file and every directory under `top` durable, the innermost first."""
    for directory, _, files in os.walk(top, topdown=False, onerror=_raise):
        for name in files:
            descriptor = os.open(Path(directory, name), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        fsync_directory(Path(directory))


def _raise(error: OSError) -> None:
    raise error


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the C library or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done = renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE)
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _replace_in_two_renames(temporary: Path, final: Path) -> None:
    old = final.with_name(f".{final.name}.old")
    _discard(old)
    final.rename(old)
    try:
        temporary.rename(final)
    except OSError:
        old.rename(final)
        raise
    fsync_directory(final.parent)
    _discard(old)
