"""Turns Ctrl-C and SIGTERM into a wish that the training loop grants after its current step."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from edge_far.errors import Deferred, EdgeFarError, Interrupted

__all__ = ["StopRequest"]


class StopRequest:
    """Installed as a context manager; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    @property
    def requested(self) -> bool:
        """Say whether a signal asked to stop."""
        return self.received is not None

    def request(self) -> None:
        """Ask to stop as SIGTERM does."""
        self.received = self.received or signal.SIGTERM

    def error(self, step: int, total: int) -> EdgeFarError:
        """Return what to raise after the checkpoint: Interrupted (130) for Ctrl-C, Deferred (75) for SIGTERM."""
        kind = Interrupted if self.received == signal.SIGINT else Deferred
        return kind(f"stopped after step {step} of {total}, checkpoint written", hint="continue with --resume")

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
