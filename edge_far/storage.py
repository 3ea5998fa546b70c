"""Files and directories that are either complete or not there: temporary sibling, fsync, rename.

Standard library only. Refuses to know what is in the files. After a crash or a power cut at any instruction a
reader finds the old content or the new one; what a killed process left behind has a name that starts with
`.TARGET.` and ends with `.tmp`, `.old` or `.copy`, and `remove_leftovers` clears it or brings the old content back.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edge_far.disk.directory_moves import (
    discard,
    exchange,
    fsync_directory,
    fsync_tree,
    hidden_sibling,
    move_directory,
    replace_in_two_renames,
    temporary_sibling,
)
from edge_far.disk.durability import fsync
from edge_far.errors import EdgeFarError, InputMissing, OutputExists, StorageError, UsageError

__all__ = [
    "TRIAL",
    "check_file",
    "check_output",
    "hint_of",
    "named_path",
    "publish_directory",
    "remove_leftovers",
    "replace_directory",
    "sha256_of",
    "staged_directory",
    "storage_error",
    "try_directory",
    "unreadable",
    "write_atomically",
    "write_json",
]

READ_BYTES = 1 << 20
TRIAL = "edge-far-trial"

HINTS = {
    errno.ENOSPC: "free space on this file system or choose another directory, then run the command again",
    errno.EDQUOT: "free space within the disk quota or choose another directory, then run the command again",
    errno.EROFS: "the file system is read-only: mount it writable or choose another directory",
    errno.EACCES: "check the owner and the mode of the directory",
    errno.EPERM: "check the owner and the mode of the directory",
    errno.ENOENT: "create the directory first",
    errno.EISDIR: "name a file in it",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or choose a file system that takes larger ones",
    errno.EMFILE: "raise the limit on open files (ulimit -n), then run the same command again",
    errno.ENFILE: "too many files are open on this machine: end what opens them, then run the same command again",
    errno.EIO: "the storage device reports errors: check the kernel log, replace a failing card",
}


def storage_error(error: OSError, path: Path) -> StorageError:
    """Return the StorageError (exit 74) that says in one line what failed on `path` and what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    hint = hint_of(error) or "check the directory and the storage device, then run the same command again"
    return StorageError(f"cannot write: {reason}", where=str(path), hint=hint)


def hint_of(error: OSError) -> str | None:
    """Return what to do about an error of the operating system, None where its number says nothing."""
    return HINTS.get(error.errno or 0)


def unreadable(error: OSError, path: Path, hint: str) -> EdgeFarError:
    """Return what to raise where a named file cannot be read: InputMissing (66) with `hint`, or StorageError (74)."""
    if isinstance(error, FileNotFoundError):
        return InputMissing("no such file", where=str(path), hint=hint)
    if isinstance(error, IsADirectoryError):
        return InputMissing("is a directory, not a file", where=str(path), hint=hint)
    todo = "check its owner and mode" if isinstance(error, PermissionError) else hint_of(error)
    return StorageError(f"cannot be read: {error.strerror}", where=str(path), hint=todo)


def write_atomically(path: Path, data: bytes | Callable[[BinaryIO], None]) -> None:
    """Replace the content of `path` by `data`, which is bytes or a function that writes to an open file.

    On any failure the temporary file is removed and the old content is intact.
    Raises StorageError when the operating system refuses; what the function itself raises passes through.
    """
    path = Path(path)
    temporary = temporary_sibling(path)
    try:
        with temporary.open("xb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            fsync(file.fileno(), path)
        temporary.replace(path)
        fsync_directory(path.parent)
    except OSError as error:
        discard(temporary)
        raise storage_error(error, path) from error
    except BaseException:
        discard(temporary)
        raise


def write_json(path: Path, document: object) -> None:
    r"""Replace `path` atomically by `document` as indented JSON; NaN and infinity are a ValueError.

    A byte of a path that is not UTF-8 is half of a surrogate pair in Python's text, and written as \udcff.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode("utf-8", "backslashreplace"))


def publish_directory(temporary: Path, final: Path) -> None:
    """Rename the complete directory `temporary` to `final`, which must not exist or be empty.

    On any failure `temporary` is removed. Raises OutputExists (73) or StorageError (74).
    """
    with _discarding(temporary, final):
        fsync_tree(temporary)
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise _exists_already(final) from error
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
        fsync_tree(temporary)
        if not final.is_dir():
            temporary.rename(final)
        elif not exchange(temporary, final):
            replace_in_two_renames(temporary, final)
        fsync_directory(final.parent)
    discard(temporary)  # after an exchange it holds the old content


@contextmanager
def staged_directory(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new empty directory beside `final` that takes its place when the block ends without an error.

    With `replace` an existing `final` is replaced; without, it is an OutputExists (73), raised before the
    block runs. A failure inside the block removes the directory; an OSError becomes a StorageError (74). What a process
    that is no more left half done for the same `final` goes first.
    """
    final = Path(final)
    _discard_of_the_dead(final)
    if not replace:
        _refuse_existing(final)
    temporary = temporary_sibling(final)
    with _discarding(temporary, final):
        temporary.mkdir()
        yield temporary
        (replace_directory if replace else publish_directory)(temporary, final)


def remove_leftovers(final: Path) -> None:
    """Clear what a killed process left beside `final`; a half-done replacement is undone."""
    final = Path(final)
    old, copy = hidden_sibling(final, "old"), hidden_sibling(final, "copy")
    try:
        if copy.is_dir():  # complete, while of the original a part may be gone already
            discard(final)
            move_directory(copy, final)
        if old.is_dir() and not final.exists():
            move_directory(old, final)
        for leftover in [old, *final.parent.glob(f".{_glob_escape(final.name)}.*.tmp")]:
            discard(leftover)
    except OSError as error:
        raise storage_error(error, final) from error


def check_output(final: Path) -> None:
    """Raise now what `staged_directory(final)` would raise when the work for it is done: OutputExists, StorageError."""
    final = Path(final)
    _refuse_existing(final)
    try_directory(final.parent)


def check_file(path: Path) -> None:
    """Raise now what `write_atomically(path, ...)` would raise when the work for it is done: StorageError."""
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:  # a name that is too long, too
        raise storage_error(error, path) from error
    try_directory(path.parent)


def try_directory(directory: Path) -> None:
    """Write, fsync, rename and remove a small directory in `directory`; raises StorageError (74)."""
    trial = temporary_sibling(Path(directory) / TRIAL)
    renamed = temporary_sibling(Path(directory) / TRIAL)
    try:
        trial.mkdir()
        (trial / "file").write_bytes(b"edge-far")
        fsync_tree(trial)
        trial.rename(renamed)
        fsync_directory(Path(directory))
    except OSError as error:
        raise storage_error(error, directory) from error
    finally:
        discard(trial)
        discard(renamed)


def named_path(word: str | os.PathLike[str], where: str) -> Path:
    """Return the path that a caller named; UsageError (64) for an empty word, which Path takes for the folder '.'."""
    if not os.fspath(word):
        raise UsageError("is empty", where=where, hint="name a directory, or leave it out")
    return Path(word)


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


def _discard_of_the_dead(final: Path) -> None:
    for leftover in final.parent.glob(f".{_glob_escape(final.name)}.*.tmp"):
        found = re.fullmatch(r"([1-9][0-9]{0,9})-[0-9a-f]{8}\.tmp", leftover.name[len(final.name) + 2 :])
        if found:
            with suppress(PermissionError, OverflowError):  # another user's, and at work
                try:
                    os.kill(int(found[1]), 0)
                except ProcessLookupError:
                    discard(leftover)


def _refuse_existing(final: Path) -> None:
    if final.exists() and not (final.is_dir() and not any(final.iterdir())):
        raise _exists_already(final)


def _exists_already(final: Path) -> OutputExists:
    hint = "choose another directory or remove it"
    return OutputExists("exists already and is not empty", where=str(final), hint=hint)


def _glob_escape(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


@contextmanager
def _discarding(temporary: Path, final: Path) -> Iterator[None]:
    """Remove `temporary` on any failure and turn an OSError into a StorageError about `final`."""
    try:
        yield
    except OSError as error:
        discard(temporary)
        raise storage_error(error, final) from error
    except BaseException:
        discard(temporary)
        raise
