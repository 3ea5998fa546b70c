"""Watches memory while training: the budget, and what the machine has left for everybody else."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_far.device.memory import ResidentSet, available_mib, resident_set

__all__ = ["MemoryWatch"]

# The plan keeps 2 % free; above this share of the budget the plan was wrong, and a smaller one must take over.
TOLERATED_SHARE = 0.99
AVAILABLE_INTERVAL_S = 1.0
SETTLING_STEPS = 2


class MemoryWatch:
    """Says after each step whether a smaller plan is needed, and why."""

    def __init__(
        self,
        budget_mib: float,
        min_available_mib: float,
        *,
        resident: Callable[[], ResidentSet] = resident_set,
        available: Callable[[], float | None] = available_mib,
    ) -> None:
        self.budget_mib = budget_mib
        self.min_available_mib = min_available_mib
        self.resident = resident
        self.available = available
        self._checked = 0.0
        self._settling = 0

    def exceeded(self) -> str | None:
        """Return the reason to step down, or None."""
        if self._settling:
            self._settling -= 1
            return None
        now = self.resident().now_mib
        if now > self.budget_mib * TOLERATED_SHARE:
            return (
                f"resident set {now:.0f} MiB exceeds {TOLERATED_SHARE:.0%} of the budget of {self.budget_mib:.0f} MiB"
            )
        if time.monotonic() - self._checked >= AVAILABLE_INTERVAL_S:
            self._checked = time.monotonic()
            left = self.available()
            if left is not None and left < self.min_available_mib:
                return (
                    f"only {left:.0f} MiB of memory are left on this machine, fewer than {self.min_available_mib:.0f}"
                )
        return None

    def settle(self) -> None:
        """After a step-down: let the new plan run a little before judging it."""
        self._settling = SETTLING_STEPS
