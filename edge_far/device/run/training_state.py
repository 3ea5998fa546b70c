"""Where a run stands, and what follows from that alone: the next state, a smaller plan, whether it has diverged.

A resumed run goes on from here (checkpoint.py writes it). Refuses to know engines, files and logs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from edge_far.device.optimizers.registry import DEFAULT_OPTIMIZER
from edge_far.device.planning.plan import Plan
from edge_far.json_file import Count, Within

__all__ = ["Step", "TrainingState"]

Amount = Annotated[float, Within(0, 1e15)]
SMOOTHING = 0.9
# Training has diverged where the smoothed loss is so many times chance, or the first loss where that is higher.
DIVERGED_RATIO = 5.0


@dataclass(frozen=True)
class Step:
    """What one optimiser step did; the loss is the batch's mean, tokens count the padding."""

    loss: float
    norm: float
    examples: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class TrainingState:
    """Where training stands after `step` optimiser steps; with bundle, data and plan it decides everything to come.

    `seconds` is all the time since the start, `step_seconds` that of the steps without evaluations and checkpoints.
    `divisor` divides the plan's micro-batches since the last step-down, `leanest` says that every one takes the step
    graph of the smallest peak; `evaluated` is the step of the last evaluation. `optimizer` names the kind whose state
    lies beside this one.
    """

    step: Count = 0
    examples: Count = 0
    seconds: Amount = 0.0
    step_seconds: Amount = 0.0
    divisor: Annotated[int, Within(1, 65_536)] = 1
    leanest: bool = False
    evaluated: Count = 0
    best_step: Count | None = None
    best_score: Annotated[float, Within(-1e15, 1e15)] | None = None
    first_loss: Amount | None = None
    smoothed_loss: Amount | None = None
    peak_rss_mib: Amount = 0.0
    optimizer: str = DEFAULT_OPTIMIZER

    def after(self, step: Step, *, seconds: float, peak_rss_mib: float) -> TrainingState:
        """Return the state after one more step, `seconds` after the start."""
        before = step.loss if self.smoothed_loss is None else self.smoothed_loss
        return replace(
            self,
            step=self.step + 1,
            examples=self.examples + step.examples,
            seconds=seconds,
            step_seconds=self.step_seconds + step.seconds,
            first_loss=step.loss if self.first_loss is None else self.first_loss,
            smoothed_loss=SMOOTHING * before + (1 - SMOOTHING) * step.loss,
            peak_rss_mib=max(self.peak_rss_mib, peak_rss_mib),
        )

    def divergence(self, chance: float) -> str | None:
        """Return by how much the loss is beyond `chance`, that of a guess, None where it is not."""
        smoothed, first = self.smoothed_loss or 0.0, self.first_loss or 0.0
        if smoothed > DIVERGED_RATIO * max(chance, first):
            return f"by step {self.step}: the loss is {smoothed:.1f}, a guess has {chance:.1f}"
        return None

    # --- the plan, as far as memory allows it now -------------------------------------------------------------------

    def rows_for(self, plan: Plan, length: int) -> int:
        """Return the examples of a micro-batch of a padded length."""
        return max(1, plan.rows_for(length) // self.divisor)

    def variant_for(self, plan: Plan, length: int) -> str:
        """Return the name of the step graph for a padded length."""
        return plan.leanest if self.leanest else plan.variant_for(length)

    def stepped_down(self, plan: Plan) -> TrainingState | None:
        """Return the state with smaller micro-batches, or else the leanest step graph; None where all is smallest."""
        if any(self.rows_for(plan, length) > 1 for length in plan.rows):
            return replace(self, divisor=2 * self.divisor)
        if any(self.variant_for(plan, length) != plan.leanest for length in plan.rows):
            return replace(self, leanest=True)
        return None

    def smaller_plan_text(self, plan: Plan) -> str:
        """Return what a step-down changed last."""
        return (
            f"the leanest step graph, {plan.leanest}," if self.leanest else f"micro-batches divided by {self.divisor}"
        )

    @property
    def step_downs(self) -> int:
        """Return how often the run took a smaller plan."""
        return self.divisor.bit_length() - 1 + int(self.leanest)
