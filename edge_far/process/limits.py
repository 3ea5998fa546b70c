"""Limits that this process was started with (ulimit, systemd's Limit*=) and that explain a failure.

What fails under them seldom says so: a library that was not mapped, a database that cannot be opened.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import suppress

from edge_far.errors import Unavailable

__all__ = [
    "few_files",
    "little_memory",
    "no_threads",
    "out_of_files",
    "out_of_memory",
    "refuse_threads",
    "threads_that_start",
]

FEW_FILES = 64
MIB = 1 << 20
_UNMAPPED = ("failed to map segment", "cannot allocate memory")  # what the dynamic linker says


def little_memory() -> str | None:
    """Return in words what limits the addresses or the data of this process, None where nothing does."""
    for number, option in ((resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")):
        limit = resource.getrlimit(number)[0]
        if limit != resource.RLIM_INFINITY:
            return f"this process may have {limit // MIB} MiB only: raise the limit (ulimit {option})"
    return None


def few_files() -> str | None:
    """Return in words that this process may open very few files, None where it may open enough."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < FEW_FILES:
        return f"this process may open {limit} files only: raise the limit (ulimit -n)"
    return None


def threads_that_start(count: int) -> int:
    """Return how many of `count` threads this process may have besides; they are started, for a moment."""
    end = threading.Event()
    started: list[threading.Thread] = []
    with suppress(RuntimeError):
        for _ in range(count):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    end.set()
    for thread in started:
        thread.join()
    return len(started)


def refuse_threads(count: int) -> None:
    """Raise Unavailable (69) where work on `count` threads cannot begin; the first of them is there already.

    ONNX Runtime waits for ever for those of its threads that did not start.
    """
    found = 1 + threads_that_start(count - 1)
    if found < count:
        message = f"this process may have {found} threads only, and {count} are needed"
        raise Unavailable(message, where="--threads", hint=f"name fewer; {_more_threads()}")


def no_threads(message: str) -> Unavailable:
    """Return the error to tell where not even few threads start."""
    return Unavailable(message, hint=_more_threads())


def _more_threads() -> str:
    return little_memory() or "raise the limit: ulimit -u, TasksMax= of a unit, the pids of a container"


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error came of a lack of memory, by whatever name."""
    return any(map(_lacks_memory, _chain(error)))


def out_of_files(error: BaseException) -> bool:
    """Return whether an import failed for too many open files, which it tells in words only."""
    return isinstance(error, ImportError) and os.strerror(errno.EMFILE) in str(error)


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, ImportError):
        text = str(error).lower()
        return any(words in text for words in _UNMAPPED) and "not permitted" not in text  # a file system without exec
    return isinstance(error, OSError) and error.errno == errno.ENOMEM


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
