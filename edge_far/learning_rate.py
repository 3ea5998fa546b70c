"""The learning rate of each optimiser step."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WarmupLinear"]


@dataclass(frozen=True, slots=True)
class WarmupLinear:
    """Linear warm-up from 0 to `base`, then linear decay to 0 at `total_steps`.

    The same values as transformers.get_linear_schedule_with_warmup; the first update is step 0.
    """

    base: float
    warmup_steps: int
    total_steps: int

    def __call__(self, step: int) -> float:
        """Return the learning rate of update number `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.base * (step / max(1, self.warmup_steps))
        return self.base * max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))
