"""How a child ended, and whether that says anything about what it worked on.

Refuses to know who asked for the child, and what follows from its end.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any

from edge_far.errors import Unavailable

__all__ = ["ChildEnd", "Progress"]

PYTHON_FAILED = 1  # the interpreter's own: edge-far has no such exit code


@dataclass
class Progress:
    """What the run log has told so far."""

    step: int = 0
    steps: int = 0
    loss: float | None = None
    micro_batch: int = 0
    predicted_peak_mib: float = 0.0
    peak_rss_mib: float = 0.0
    paused: bool = False
    paused_s: float = 0.0
    step_downs: int = 0
    events: int = 0


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended: `status` is negative for a signal; `stopped` says why it was asked to end."""

    status: int
    seconds: float
    progress: Progress
    stalled: bool = False
    stopped: str | None = None
    oom_killed: bool = False
    error: dict[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def died(self) -> bool:
        """Return whether it ended otherwise than by its own decision."""
        return self.stalled or (self.status < 0 and self.stopped is None)

    @property
    def broken_environment(self) -> bool:
        """Return whether what it runs on ended it, which says nothing about what it worked on.

        A package that does not start here (69), Python itself (1), or an instruction that this processor lacks.
        """
        return self.status in (Unavailable.exit_code, PYTHON_FAILED, -signal.SIGILL) and not self.stopped

    def unavailable(self, who: str) -> Unavailable:
        """Return the error to tell of a broken environment, in the child's own words where it had some."""
        if self.status == Unavailable.exit_code and self.error.get("message"):
            return Unavailable(str(self.error["message"]), where=self.error.get("where"), hint=self.error.get("hint"))
        return Unavailable(f"{who} {self.describe()}", hint="the examples are kept; the next look tries again")

    def describe(self) -> str:
        """Return in a clause how it ended."""
        after = f" after step {self.progress.step} of {self.progress.steps}" if self.progress.step else ""
        if self.stalled:
            return f"made no progress and was killed{after}"
        if self.oom_killed:
            return f"was killed for lack of memory{after}"
        if self.status < 0:
            return f"was killed by {_signal_name(-self.status)}{after}"
        reason = str(self.error.get("message") or self.text or "no message")
        hint = self.error.get("hint")
        return f"ended with status {self.status}{after}: {reason}" + (f" ({hint})" if hint else "")


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
