"""Names of files for libraries that take names in UTF-8 only; a path on Linux is any bytes.

ONNX Runtime and the Rust tokenizers refuse the text that Python makes of other bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["utf8_path"]


@contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """Yield a name in UTF-8 that leads to `path` until the block ends: its own, or one through an open directory.

    The last part of `path` must be UTF-8, as the names of our own files are. Raises OSError.
    """
    try:
        own = os.fsencode(path).decode()  # where the locale is ASCII, Python's text of a UTF-8 path is none
    except UnicodeDecodeError:
        own = None
    if own is not None:
        yield own
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
