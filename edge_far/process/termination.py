"""SIGTERM as Ctrl-C is for a command that leaves its work half done on the disk: it unwinds, and ends in good order.

Refuses to know what the command does; a command that hears the signal itself puts its own handler in this one's place.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "unwinding"]


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


@contextmanager
def unwinding() -> Iterator[None]:
    """Let SIGTERM raise Terminated inside the block, where it would end the process; a second one ends it at once."""
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    """Say whether this thread may set handlers of signals."""
    return threading.current_thread() is threading.main_thread()


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated
