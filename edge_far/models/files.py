"""Is a file of the model's directory what its name says, and what does a small JSON file hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edge_far.errors import InputMissing, StorageError, Unavailable

__all__ = ["check_file", "is_named_here", "read_json", "read_object"]

POINTER = b"version https://git-lfs"
_AGAIN = "download or save the model again"
MAX_JSON_BYTES = 256 << 20  # tokenizer.json of a large vocabulary has some tens of MiB


def is_named_here(path: Path) -> bool:
    """Say whether there is an entry of this name, be it a link that leads nowhere."""
    return os.path.lexists(path)


def check_file(path: Path) -> int:
    """Return the size in bytes of a file that has a content of its own.

    Raises Unavailable for a directory, an empty file and a Git LFS pointer, InputMissing for a link to nothing,
    StorageError for a file that may not be read.
    """
    if path.is_symlink() and not path.exists():
        raise InputMissing(
            "is a link to a file that is not here", where=str(path), hint="copy the directory with cp -rL"
        )
    if path.is_dir():
        raise Unavailable("is a directory, not a file", where=str(path), hint=_AGAIN)
    try:
        with path.open("rb") as file:
            beginning = file.read(len(POINTER))
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StorageError(
            f"cannot read: {error.strerror}", where=str(path), hint="check the owner and the mode of the file"
        ) from error
    if beginning == POINTER:
        raise Unavailable(
            "is a Git LFS pointer, not the file itself", where=str(path), hint="run git lfs pull in its repository"
        )
    if not beginning:
        raise Unavailable("the file is empty", where=str(path), hint=_AGAIN)
    return size


def read_object(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file; raises what `read_json` raises, and Unavailable for any other content."""
    document = read_json(path)
    if not isinstance(document, dict):
        raise Unavailable("holds no JSON object", where=str(path), hint=_AGAIN)
    return document


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; raises what `check_file` raises, and Unavailable for what is no JSON."""
    if check_file(path) > MAX_JSON_BYTES:
        raise Unavailable(f"is larger than {MAX_JSON_BYTES >> 20} MiB", where=str(path), hint=_AGAIN)
    try:
        document = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise Unavailable(
            f"broken JSON at line {error.lineno}, column {error.colno}: {error.msg}", where=str(path), hint=_AGAIN
        ) from error
    except UnicodeDecodeError as error:
        raise Unavailable(f"not UTF-8: byte {error.start + 1}", where=str(path), hint=_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise Unavailable("broken JSON: number too long or nested too deeply", where=str(path), hint=_AGAIN) from error
    return document
