"""How directories are renamed, replaced, copied and removed so that a kill at any instruction can be undone.

A directory in a lower layer of an overlay cannot be renamed (EXDEV): it is copied, the copy renamed, the original
removed. storage.py knows when which of this is done, and `remove_leftovers` there what a killed process left.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from edge_far.disk.durability import fsync

__all__ = [
    "discard",
    "discard_directory",
    "exchange",
    "fsync_directory",
    "fsync_tree",
    "hidden_sibling",
    "move_directory",
    "replace_in_two_renames",
    "temporary_sibling",
]

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def temporary_sibling(path: Path) -> Path:
    """Return a name beside `path` that is used once, for what is not complete."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def hidden_sibling(path: Path, suffix: str) -> Path:
    """Return the name beside `path` under which old content waits: `.NAME.old` or `.NAME.copy`."""
    return path.with_name(f".{path.name}.{suffix}")


def fsync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable, as far as its file system can; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(descriptor, path)
    finally:
        os.close(descriptor)


def fsync_tree(top: Path) -> None:
    """Make every file and every directory under `top` durable, the innermost first."""
    for directory, _, files in os.walk(top, topdown=False, onerror=_raise):
        for name in files:
            descriptor = os.open(Path(directory, name), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fsync(descriptor, Path(directory))
            finally:
                os.close(descriptor)
        fsync_directory(Path(directory))


def discard(path: Path) -> None:
    """Remove a file or a directory tree; a failure to do so never hides the error that led here."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def discard_directory(path: Path) -> None:
    """Remove a directory tree; where it can be renamed, it is gone at once, and a killed process leaves a `.tmp`."""
    hidden = temporary_sibling(path)
    try:
        path.rename(hidden)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        hidden = path
    shutil.rmtree(hidden)


def move_directory(source: Path, target: Path) -> None:
    """Rename a directory, or where its file system cannot, let a copy appear as `target` and remove `source`.

    Raises OSError; `source` is complete until `target` is.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_directory(source, target, temporary_sibling(target))
        shutil.rmtree(source)


def exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the C library or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    done = renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE)
    if done == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV):
        return False
    raise OSError(number, os.strerror(number), str(second))


def replace_in_two_renames(temporary: Path, final: Path) -> None:
    """Put `temporary` in the place of the directory `final`, which bears another name for a moment; raises OSError."""
    old = hidden_sibling(final, "old")
    discard(old)
    _make_way(final, old)
    try:
        temporary.rename(final)
    except OSError:
        old.rename(final)
        raise
    fsync_directory(final.parent)
    discard(old)


def _make_way(final: Path, old: Path) -> None:
    """Give the directory `final` the name `old`.

    Where it must be copied, the copy is complete under a name of its own before anything of `final` is removed:
    `remove_leftovers` trusts it more than what is left of `final`.
    """
    try:
        final.rename(old)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = hidden_sibling(final, "copy")
        discard(copy)
        _copy_directory(final, copy, temporary_sibling(final))
        try:
            shutil.rmtree(final)
            copy.rename(old)
        except OSError:
            discard(final)
            copy.rename(final)
            raise


def _copy_directory(source: Path, target: Path, temporary: Path) -> None:
    """Let a durable copy of a directory, made under the name `temporary`, appear as `target`; raises OSError."""
    try:
        shutil.copytree(source, temporary, symlinks=True)
        fsync_tree(temporary)
        temporary.rename(target)
        fsync_directory(target.parent)
    except BaseException:
        discard(temporary)
        raise


def _raise(error: OSError) -> None:
    raise error
