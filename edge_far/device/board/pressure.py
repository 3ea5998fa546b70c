"""Watches memory while training: the budget, and what the machine has left for everybody else."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_far.device.board.memory import ResidentSet, available_mib, resident_set
from edge_far.device.board.sensors import Sensors

__all__ = ["MemoryWatch"]

# The plan keeps 3 % free; above this share of the budget it was wrong, and a smaller one must take over.
TOLERATED_SHARE = 0.99
SYSTEM_INTERVAL_S = 1.0
SETTLING_STEPS = 2
SETTLING_S = 10.0  # PSI's average looks back as far


def memory_psi_percent() -> float | None:
    """Return the share of the last 10 s in which some process waited for memory, or None without PSI."""
    pressure = Sensors().pressure()
    return None if pressure is None else pressure.some_avg10_percent


class MemoryWatch:
    """Says after each step whether a smaller plan is needed, and why."""

    def __init__(
        self,
        budget_mib: float,
        min_available_mib: float,
        max_psi_percent: float | None = None,
        *,
        resident: Callable[[], ResidentSet] = resident_set,
        available: Callable[[], float | None] = available_mib,
        psi: Callable[[], float | None] = memory_psi_percent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget_mib = budget_mib
        self.min_available_mib = min_available_mib
        self.max_psi_percent = max_psi_percent
        self.resident, self.available, self.psi, self.clock = resident, available, psi, clock
        self._settling = 0
        self._next_look = clock()

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
        if self.clock() < self._next_look:
            return None
        self._next_look = self.clock() + SYSTEM_INTERVAL_S
        return self._system_short()

    def settle(self) -> None:
        """After a step-down: let the new plan run a little before judging it."""
        self._settling = SETTLING_STEPS
        self._next_look = self.clock() + SETTLING_S

    def _system_short(self) -> str | None:
        left = self.available()
        if left is not None and left < self.min_available_mib:
            return f"only {left:.0f} MiB of memory are left on this machine, fewer than {self.min_available_mib:.0f}"
        if self.max_psi_percent is None:
            return None
        waited = self.psi()
        if waited is not None and waited > self.max_psi_percent:
            return (
                f"processes of this machine waited for memory {waited:.0f} % of the last 10 s, "
                f"more than {self.max_psi_percent:g} %"
            )
        return None
