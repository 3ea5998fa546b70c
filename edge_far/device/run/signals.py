"""Turns Ctrl-C, SIGTERM and a closed terminal into a wish that training grants before its next micro-batch."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from edge_far.errors import Deferred, EdgeFarError, Interrupted

__all__ = ["StopRequest"]


class StopRequest:
    """Installed as a context manager.

    Until `training` is set there is nothing to save, so Ctrl-C interrupts at once, as a second one always does.
    SIGHUP is left alone where it was ignored from the start (nohup): there the terminal may close.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.training = False

    @property
    def requested(self) -> bool:
        """Say whether a signal asked to stop."""
        return self.received is not None

    def request(self) -> None:
        """Ask to stop as SIGTERM does."""
        self.received = self.received or signal.SIGTERM

    def error(self, step: int, total: int) -> EdgeFarError:
        """Return what to raise after the checkpoint: Interrupted (130) for Ctrl-C, Deferred (75) for the others."""
        kind = Interrupted if self.received == signal.SIGINT else Deferred
        return kind(f"stopped after step {step} of {total}, checkpoint written", hint="continue with --resume")

    def __enter__(self) -> StopRequest:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and (self.received == signal.SIGINT or not self.training):
            raise KeyboardInterrupt
        self.received = number
