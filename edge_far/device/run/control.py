"""Lets another process pause a training run between two steps, by a small file that holds run, pause or stop.

The file is read at most once a second. While it says pause the run waits and writes a `paused` event every
HEARTBEAT_S seconds, so that whoever follows the log sees that the loop is alive. A file that is missing or says
something else means run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge_far.device.run.runlog import RunLog
from edge_far.device.run.signals import StopRequest

__all__ = ["Control"]

INTERVAL_S = 1.0
HEARTBEAT_S = 10.0
POLL_S = 0.2


class Control:
    """The reader's side of one control file; without a path it never pauses."""

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = path
        self._clock = clock
        self._sleep = sleep
        self._read_s: float | None = None
        self._wish = "run"

    def wait(self, stop: StopRequest, log: RunLog, step: int) -> float:
        """Return at once, or after a pause; return its length in s. A wish to stop is handed to `stop`."""
        if self._look() == "run":
            return 0.0
        began, told = self._clock(), None
        while self._look() == "pause" and not stop.requested:
            now = self._clock()
            if told is None or now - told >= HEARTBEAT_S:
                told = now
                log.write("paused", step=step, seconds=round(now - began, 1))
            self._sleep(POLL_S)
        if self._wish == "stop":
            stop.request()
        paused = self._clock() - began
        if told is not None:
            log.write("resumed", step=step, seconds=round(paused, 1))
        return paused

    def wait_quietly(self, stop: StopRequest) -> None:
        """Return at once, or after a pause, where no step has been logged yet; a wish to stop is handed to `stop`."""
        while self._look() == "pause" and not stop.requested:
            self._sleep(POLL_S)
        if self._wish == "stop":
            stop.request()

    def _look(self) -> str:
        if self._path is None:
            return "run"
        now = self._clock()
        if self._read_s is None or now - self._read_s >= INTERVAL_S:
            self._read_s = now
            self._wish = "run"
            with suppress(OSError):
                found = self._path.read_bytes()[:16].decode("ascii", "replace").strip()
                self._wish = found if found in ("pause", "stop") else "run"
        return self._wish
