"""What the trainer shall do right now: go on, wait for heat or memory, or leave a checkpoint and end."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_far.daemon.children.child_end import Progress
from edge_far.daemon.children.supervisor import Wish
from edge_far.daemon.context import Context
from edge_far.daemon.training.conditions import PauseControl, allowed_now

__all__ = ["Overseer"]

READING_S = 2.0
TELLING_S = 60.0


class Overseer:
    """Asked a few times a second while one trainer runs; reads the sensors every READING_S seconds."""

    def __init__(self, context: Context, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._clock = clock
        self._control = PauseControl(context.profile, clock=clock)
        self._ends_s = clock() + context.profile.adaptation.max_minutes * 60
        self._read_s = self._told_s = float("-inf")

    def __call__(self, progress: Progress) -> Wish:
        """Return the wish for this moment, and tell systemd and `status` how far it is."""
        context, now = self._context, self._clock()
        context.tick()
        if context.stop():
            return Wish("stop", "asked to stop")
        if now > self._ends_s:
            return Wish("stop", f"adaptation.max_minutes ({context.profile.adaptation.max_minutes}) are over")
        paused = self._control.paused
        if now - self._read_s >= READING_S:
            self._read_s = now
            self._control.profile = context.profile  # it may have been loaded anew
            self._control.update(context.sensors.read())
        reasons = "; ".join(condition.text for condition in self._control.reasons)
        if self._control.paused and not allowed_now(context.profile, context.local_time()):
            return Wish("stop", f"paused ({reasons}), and the allowed hours are over")
        if paused != self._control.paused or now - self._told_s >= TELLING_S:
            self._told_s = now
            context.changed()
        context.notifier.status(_sentence(progress, reasons if self._control.paused else None))
        return Wish("pause", reasons) if self._control.paused else Wish()


def _sentence(progress: Progress, paused: str | None) -> str:
    if paused is not None:
        return f"training paused at step {progress.step} of {progress.steps}: {paused}"
    if not progress.step:
        return "training starts"
    return f"training: step {progress.step} of {progress.steps}, loss {progress.loss:.3f}"
