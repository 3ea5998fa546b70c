"""How a process is asked to end: SIGTERM unwinds a command that leaves its work half done, as Ctrl-C does.

A command that goes on for long hears signals as flags instead (`Signals`, in the place of that handler). Refuses to
know what the command does.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["Signals", "Terminated", "unwinding"]


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


class Signals:
    """SIGTERM, SIGINT and SIGHUP as flags, and a sleep that they end."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Signals:
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._reader)
        os.close(self._writer)

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the next signal."""
        ready, _, _ = select.select([self._reader], [], [], max(0.0, seconds))
        if ready:
            with suppress(BlockingIOError):
                os.read(self._reader, 1024)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self.reload = True
        else:
            self.stop = True


def _in_main_thread() -> bool:
    """Say whether this thread may set handlers of signals."""
    return threading.current_thread() is threading.main_thread()


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated
