"""The rule of the choice: the cheapest rung that is not measurably worse than the best.

Rungs answer the same held-out examples, so they are compared on the same resamples of them: the standard error is that
of the difference, which is smaller than that of either score (the one-standard-error rule of Breiman et al. 1984,
paired). The score is the task's. Of one label a text it is Matthews' correlation for any number of labels (Gorodkin
2004): where labels are balanced it is nearly the accuracy, and where one is frequent it does not reward who always
names that one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_far.tasks.interface import Task

__all__ = ["Answers", "Compared", "cheapest_good", "compare"]

RESAMPLES = 400


@dataclass(frozen=True, eq=False)
class Answers:
    """What a rung says of the held-out examples and what is right, as the task has them (tasks/interface.py)."""

    task: Task
    truth: np.ndarray
    said: np.ndarray

    @property
    def score(self) -> float:
        """Return the task's score."""
        return self.weighted(np.ones(len(self.truth)))

    @property
    def figures(self) -> dict[str, float]:
        """Return the score by its name, and what else a table tells."""
        return self.task.score_figures(self.truth, self.said)

    def weighted(self, weights: np.ndarray) -> float:
        """Return the score with each example counted so many times."""
        return self._scorer(weights)

    @cached_property
    def _scorer(self) -> Callable[[np.ndarray], float]:
        return self.task.scorer(self.truth, self.said)


@dataclass(frozen=True)
class Compared:
    """How far a rung's score is below the best one's, and the standard error of that."""

    below: float
    error: float

    @property
    def good(self) -> bool:
        """Say whether it is not measurably worse."""
        return self.below <= self.error


def compare(answers: Answers, best: Answers) -> Compared:
    """Compare two rungs by the same resamples (bootstrap, Efron 1979) of the held-out examples."""
    random, count = np.random.default_rng(0), len(answers.truth)
    differences = []
    for _ in range(RESAMPLES):
        weights = np.bincount(random.integers(count, size=count), minlength=count).astype(np.float64)
        differences.append(best.weighted(weights) - answers.weighted(weights))
    return Compared(best.score - answers.score, float(np.std(differences, ddof=1)))


def cheapest_good(answers: Sequence[Answers], work: Sequence[float]) -> tuple[int, int, list[Compared]]:
    """Return the number of the rung to take, that of the best, and how each compares; `work` is each one's cost."""
    scores = [one.score for one in answers]
    best = max(range(len(answers)), key=lambda number: (scores[number], -work[number]))
    compared = [compare(one, answers[best]) for one in answers]
    chosen = min((n for n in range(len(answers)) if compared[n].good), key=lambda number: work[number])
    return chosen, best, compared
