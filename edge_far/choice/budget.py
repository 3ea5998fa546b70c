"""How much work a choice may take, and how many examples that allows.

Work is counted, not timed: the same data lead to the same choice on a quick and on a slow machine. Time decides only
where the user gives minutes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edge_far.choice.frozen import STATE_BYTES
from edge_far.choice.held_out import Fold
from edge_far.choice.rungs import FULL, Geometry, Rung, forward_flops, step_flops
from edge_far.choice.trials import Trial
from edge_far.far.above_cut import as_mapping, logits_of
from edge_far.far.method import cut_of
from edge_far.texts.batches import collate
from edge_far.texts.encode import Encoded

__all__ = ["Budget", "plan_budget"]

FULL_RUNS = 3.0  # full fine-tunings of the same data
SCREENED = 4  # the first round sees a quarter
FEWEST = 400
MOST_STATES = 2 << 30  # bytes of memory
# Examples of a timed forward pass, and how often it runs; a training step takes longer than its operations alone.
TIMED, TIMES = 64, 3
OVERHEAD = 1.3
ROUNDING = 1e-9  # of sums in another order


@dataclass
class Budget:
    """The work of a choice: `examples` to train on in the second round, `screened` in the first, and `folds`.

    `flops` is what may be spent, `spent` what was; `told` says it to a person.
    """

    shape: Geometry
    flops: float
    examples: int
    screened: int
    folds: int
    told: str
    spent: float = 0.0

    def allows(self, trial: Trial) -> bool:
        """Say whether a trial on all examples and folds fits what is left."""
        return self.spent + self._cost(trial) <= self.flops * (1 + ROUNDING)

    def take(self, trial: Trial) -> None:
        """Count a trial on all examples and folds; one of the head alone costs next to nothing."""
        self.spent += self._cost(trial) if trial.rung.method != "head" else 0.0

    def _cost(self, trial: Trial) -> float:
        return self.folds * self.examples * trial_flops(trial, self.shape)


def trial_flops(trial: Trial, shape: Geometry) -> float:
    """Return the operations of a trial for one example; torch computes all tokens of the last block."""
    return trial.epochs * step_flops(trial.rung, shape, "mean")


def plan_budget(
    model: nn.Module,
    encoded: Encoded,
    shape: Geometry,
    parts: Sequence[Fold],
    trials: Mapping[Rung, Sequence[Trial]],
    minutes: float | None,
) -> Budget:
    """Return what three full fine-tunings of the same data allow, or so many minutes here if that is less."""
    pace = OVERHEAD * _seconds_per_flop(model, encoded, shape)
    tops = [own for rung, own in trials.items() if rung.method != "head"]
    epochs = max(trial.epochs for own in tops for trial in own)
    forward = forward_flops(shape, shape.blocks)
    full = epochs * FULL * forward * len(encoded)
    flops = FULL_RUNS * full if minutes is None else min(FULL_RUNS * full, 60 * minutes / pace)
    first = sum(trial_flops(trial, shape) for own in tops for trial in own)
    second = sum(trial_flops(own[0], shape) for own in tops)
    most, left, folds = len(parts[0].train), flops - len(encoded) * forward, len(parts)
    while folds > 1 and (first / SCREENED + folds * second) * most > left:
        folds -= 1
    fitting = int(max(left, 0.0) / (first / SCREENED + folds * second))
    kept = sum(0 < cut_of(rung.method, shape.blocks) < shape.blocks for rung in trials)
    stored = int(MOST_STATES / max(1.0, shape.tokens * shape.width * STATE_BYTES * kept))
    examples = max(min(most, fitting, stored), min(most, FEWEST))
    screened = max(min(examples, FEWEST), examples // SCREENED)
    spent = first * screened + len(encoded) * forward
    told = f"about {_clock(pace * (spent + folds * second * examples))} (full fine-tuning: {_clock(pace * full)})"
    if examples < most:
        told += f"; on {examples} of {most} examples"
    planned = spent + folds * second * examples  # with few examples more than was allowed: each rung gets its turn
    return Budget(shape, max(flops, planned), examples, screened, folds, told, spent)


def _seconds_per_flop(model: nn.Module, encoded: Encoded, shape: Geometry) -> float:
    """Time texts of usual length, forwards; the quickest of a few runs counts."""
    middle = np.argsort(np.abs(encoded.lengths - shape.tokens), kind="stable")[:TIMED]
    batch = as_mapping(collate(encoded, middle))
    times = []
    with torch.no_grad():
        for _ in range(TIMES):
            started = time.perf_counter()
            logits_of(model, batch).sum().item()
            times.append(time.perf_counter() - started)
    return min(times) / (len(middle) * forward_flops(shape, shape.blocks))


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
