"""Calls into Rust packages (tokenizers, safetensors): what they print is dropped, and a panic is an error like others.

A panic of theirs is no Exception, and prints a stack of its own. Refuses to know what is called and why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

__all__ = ["RustFailure", "calling_rust", "is_panic", "leaving_streams_alone", "silence"]

SHOWN = 200
_streams_are_ours = ContextVar("streams_are_ours", default=True)  # in a thread that says nothing else


class RustFailure(Exception):
    """A call failed; the text is the reason, in one line of harmless letters."""


def is_panic(error: BaseException) -> bool:
    """Say whether this is a panic of a Rust package; its class cannot be imported."""
    return type(error).__name__ == "PanicException"


@contextmanager
def calling_rust() -> Iterator[None]:
    """Run a block in silence; whatever it raises becomes RustFailure."""
    try:
        with silence():
            yield
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0][:SHOWN] if lines else type(error).__name__
        raise RustFailure(ascii(reason)[1:-1]) from error


@contextmanager
def leaving_streams_alone() -> Iterator[None]:
    """Run a block in which this thread silences nothing: in an application other threads write to the streams too."""
    token = _streams_are_ours.set(False)
    try:
        yield
    finally:
        _streams_are_ours.reset(token)


@contextmanager
def silence() -> Iterator[None]:
    """Drop what native code writes to stdout and stderr meanwhile; where that cannot be, it is written."""
    if not _streams_are_ours.get():
        yield
        return
    kept: list[int] = []
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(1), os.dup(2)]
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    try:
        yield
    finally:
        if kept:
            with suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
                sys.stderr.flush()
        for descriptor, stream in zip(kept, (1, 2), strict=False):
            os.dup2(descriptor, stream)
            os.close(descriptor)
