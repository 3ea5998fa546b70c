"""fsync, on file systems that can and on those that cannot: network and shared folders often refuse it.

Refused is not failed: what was written is there, and only a power cut may undo it. That is told once a process. An
error of the storage device, or a full disk, stays an error.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from edge_far.console import Console

__all__ = ["fsync"]

# What file systems answer that do not know the operation, most of them for directories only.
REFUSED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY})
_warned: list[Path] = []  # one warning a process


def fsync(descriptor: int, path: Path) -> None:
    """Make what was written to an open file or directory durable; raises OSError.

    Where the file system of `path` refuses, one warning says what that means, and the work goes on.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        if not _warned:
            _warned.append(path)
            Console().warn(
                f"{path}: this file system refuses fsync ({error.strerror}): a power cut may undo what was written last"
            )
