"""How much work a choice may take, and how many examples that allows.

Work is counted, not timed: the same data lead to the same choice on a quick and on a slow machine. Time decides only
where the user gives minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from edge_far.choice.frozen import STATE_BYTES
from edge_far.choice.held_out import Fold
from edge_far.choice.rungs import FULL, Geometry, Rung, forward_flops, step_flops
from edge_far.choice.trials import Trial
from edge_far.far.above_cut import above_cut, as_mapping, logits_of, mean_loss
from edge_far.far.method import cut_of
from edge_far.far.prime import adamw
from edge_far.far.reconfigure import trained_parameters
from edge_far.texts.batches import collate
from edge_far.texts.encode import Encoded

__all__ = ["Budget", "plan_budget"]

FULL_RUNS = 3.0  # full fine-tunings of the same data
SCREENED = 4  # the first round sees a quarter
FEWEST = 400
MOST_STATES = 2 << 30  # bytes of memory
TIMED_STEPS = 3  # of full training, the first of which warms up
ROUNDING = 1e-9  # of sums in another order


@dataclass
class Budget:
    """The work of a choice: `examples` to train on in the second round, `screened` in the first, and `folds`.

    `trials` are those of each rung that fit; where each rung has one alone, there is one round (`single`). `flops` is
    what may be spent, `spent` what was; `told` says it to a person.
    """

    shape: Geometry
    trials: Mapping[Rung, Sequence[Trial]]
    flops: float
    examples: int
    screened: int
    folds: int
    told: str
    spent: float = 0.0

    @property
    def single(self) -> bool:
        """Say whether nothing is left to screen: one learning rate and one pooling."""
        return _is_single(self.trials)

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
    batch_size: int,
    loss: str,
) -> Budget:
    """Return what three full fine-tunings of the same data allow, or so many minutes here if that is less.

    `loss` is the task's (far/above_cut.py).
    """
    pace = _seconds_per_flop(model, encoded, shape, batch_size, loss)
    tops = [own for rung, own in trials.items() if rung.method != "head"]
    epochs = max(trial.epochs for own in tops for trial in own)
    forward = forward_flops(shape, shape.blocks)
    full = epochs * FULL * forward * len(encoded)
    flops = FULL_RUNS * full if minutes is None else min(FULL_RUNS * full, 60 * minutes / pace)
    most, left = len(parts[0].train), max(0.0, flops - len(encoded) * forward)
    kept = sum(0 < cut_of(rung.method, shape.blocks) < shape.blocks for rung in trials)
    stored = int(MOST_STATES / max(1.0, shape.tokens * shape.width * STATE_BYTES * kept))
    fewest = min(most, stored, FEWEST)
    for narrowed in _narrowings(trials):
        first, second = _costs(narrowed, shape)
        folds = len(parts)
        while folds > 1 and first * _screened(most) + folds * second * most > left:
            folds -= 1
        fitting = int(left / (first / SCREENED + folds * second))
        examples = max(min(most, fitting, stored), fewest)
        if first * _screened(examples) + folds * second * examples <= left:
            break
    screened = _screened(examples)
    spent = first * screened + len(encoded) * forward
    told = f"about {_clock(pace * (spent + folds * second * examples))} (full fine-tuning: {_clock(pace * full)})"
    if _is_single(narrowed) and not _is_single(trials):
        told += "; that is too little to try other learning rates, and each pooling with each rung"
    if examples < most:
        told += f"; on {examples} of {most} examples"
    planned = spent + folds * second * examples  # with few examples more than was allowed: each rung gets its turn
    return Budget(shape, narrowed, max(flops, planned), examples, screened, folds, told, spent)


def _narrowings(trials: Mapping[Rung, Sequence[Trial]]) -> Iterator[Mapping[Rung, Sequence[Trial]]]:
    """Yield all trials, then those with the usual learning rate and pooling alone; the head's cost next to nothing."""
    yield trials
    yield {rung: own if rung.method == "head" else own[:1] for rung, own in trials.items()}


def _screened(examples: int) -> int:
    return max(min(examples, FEWEST), examples // SCREENED)


def _is_single(trials: Mapping[Rung, Sequence[Trial]]) -> bool:
    return all(len(own) == 1 for rung, own in trials.items() if rung.method != "head")


def _costs(trials: Mapping[Rung, Sequence[Trial]], shape: Geometry) -> tuple[float, float]:
    """Return the operations of the first round and of the second for one example."""
    tops = [own for rung, own in trials.items() if rung.method != "head"]
    first = 0.0 if _is_single(trials) else sum(trial_flops(trial, shape) for own in tops for trial in own)
    return first, sum(trial_flops(own[0], shape) for own in tops)


def _seconds_per_flop(model: nn.Module, encoded: Encoded, shape: Geometry, batch_size: int, loss_name: str) -> float:
    """Time training steps of all blocks on texts of usual length; the quickest counts.

    A step of a small batch takes longer than its operations alone, so it is steps that are timed.
    """
    copied = above_cut(model, 0)
    trained = trained_parameters(copied, "frozen")
    optimizer = adamw(trained, 0.0, 0.0)
    middle = np.argsort(np.abs(encoded.lengths - shape.tokens), kind="stable")[:batch_size]
    batch = as_mapping(collate(encoded, middle))
    times = []
    for _ in range(TIMED_STEPS):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = mean_loss(loss_name, logits_of(copied, batch), batch["labels"])
        loss.backward()
        optimizer.step()
        loss.item()
        times.append(time.perf_counter() - started)
    return min(times) / (len(middle) * step_flops(Rung("full"), shape, "mean"))


def _clock(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
