"""Turns whatever a command raised into one error with an exit code: the net under all else.

An error that nobody foresaw ends in a file with its traceback and the versions of what is installed, for a report.
Nothing but the shared floor's smallest rooms is imported here, and all else late: a broken Python must not break this.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from edge_far import __version__
from edge_far.errors import Deferred, EdgeFarError, Interrupted, StorageError
from edge_far.process.limits import little_memory, no_threads, out_of_files, out_of_memory, threads_that_start
from edge_far.process.packages import explain_import
from edge_far.process.privacy import cache_directory
from edge_far.process.termination import Terminated

__all__ = ["as_error"]

DEVICE = ("numpy", "pyyaml", "onnxruntime", "onnxruntime-training", "tokenizers", "safetensors", "psutil")
HOST = ("torch", "transformers", "onnx", "onnx-ir", "onnxscript")
SHOWN = 300
REPORT_MODE = 0o600


def as_error(error: BaseException, words: Sequence[str] = (), extra: str = "device") -> EdgeFarError:
    """Return the error to tell of; `words` are the command's, `extra` is the one of edge-far's extras it needs."""
    if isinstance(error, EdgeFarError):
        return error
    if isinstance(error, Terminated):
        return Deferred("stopped by SIGTERM", hint="nothing half done is left; run the command again")
    if isinstance(error, KeyboardInterrupt):
        if not threads_that_start(1):  # then NumPy's OpenBLAS interrupts this process by itself
            return no_threads("this process may have one thread only")
        return Interrupted("interrupted")
    if out_of_memory(error) and not isinstance(error, ImportError):
        hint = "free memory or give a smaller --budget-mib; a training run continues with --resume"
        return Deferred("the system has no memory left", hint=little_memory() or hint)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if out_of_files(error):
        return _of_the_system(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
    return explain_import(error, extra) or _unforeseen(error, words)


def _of_the_system(error: OSError) -> StorageError:
    from edge_far.storage import hint_of

    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    reason = error.strerror or str(error) or type(error).__name__
    return StorageError(reason, where=where, hint=hint_of(error))


def _unforeseen(error: BaseException, words: Sequence[str]) -> EdgeFarError:
    message = " ".join(str(error).split())[:SHOWN]
    kind = type(error).__name__
    path = _write_report(error, words)
    hint = "a defect of edge-far: please report it" + (f" with {path}" if path else "; -v shows where it came from")
    return EdgeFarError(f"unforeseen {kind}: {message}" if message else f"unforeseen {kind}", hint=hint)


def _write_report(error: BaseException, words: Sequence[str]) -> Path | None:
    """Write the report to our cache, else to the directory of temporary files; one file a place in the code."""
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    digest = hashlib.sha256(repr((type(error).__name__, places)).encode()).hexdigest()[:8]
    text = _report(error, words)
    for folder_of in (cache_directory, _temporary):
        with suppress(Exception):
            from edge_far.storage import write_atomically

            folder = folder_of()
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"edge-far-failure-{digest}.txt"
                write_atomically(path, text.encode("utf-8", "backslashreplace"))
                path.chmod(REPORT_MODE)
                return path
    return None


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _report(error: BaseException, words: Sequence[str]) -> str:
    """Return the report; of the command line only the command and the names of options, for the rest may be texts."""
    command = next((word for word in words if not word.startswith("-")), "")
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    lines = [
        "A failure of edge-far that nobody foresaw. Look into this file before you pass it on: the last lines may",
        "repeat a few words of your data.",
        "",
        f"command      {' '.join([command, *options])}",
        f"edge-far     {__version__}",
        f"python       {sys.version.split()[0]} ({sys.executable})",
        f"system       {platform.platform()}",
    ]
    for package in (*DEVICE, *HOST):
        with suppress(metadata.PackageNotFoundError):
            lines.append(f"{package:<12} {metadata.version(package)}")
    return "\n".join([*lines, "", *traceback.format_exception(error)])
