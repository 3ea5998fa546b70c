"""A number a text: squared error on a standardised scale; Pearson, Spearman and the root mean squared error.

The model learns (label - mean) / deviation of the training data, so that its loss and its learning rate do not depend
on the user's unit; whatever is told is in that unit. An answer's credit is 1 - its squared error in units of the
training data's variance: the mean credit is the share of variance explained, 0 for who always names the mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from edge_far.bundles.manifest import Scale, TaskInfo
from edge_far.errors import ConfigError, DataError
from edge_far.tasks.interface import Metrics, all_alike
from edge_far.texts.encode import Encoded
from edge_far.texts.labels import Numbers
from edge_far.texts.targets import TokenTargets

__all__ = ["Regress", "RegressEvaluation", "pearson", "spearman"]

NAME = "regress"
STRATA = 10
SMALLEST_DEVIATION = 1e-15
DIGITS = 7  # of an answer: what float32 knows


class Regress:
    """The task of numbers on a scale; targets are standardised, float32 [N, 1], NaN where there is none."""

    form_name = "number"
    problem_type: str | None = "regression"
    score_title = "Pearson's correlation"
    credit_name = "explained"
    head_class = "SequenceClassification"
    reading: TokenTargets | None = None
    right_or_wrong = False
    threshold = None
    outputs = 1
    labels: tuple[str, ...] = ()

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self.info = TaskInfo(NAME, form=self.form_name, loss="square", outputs=1, scale=scale)

    @classmethod
    def made(cls, labels: Sequence[str], scale: Scale | None, threshold: float | None) -> Regress:
        """Return the task that a bundle or a release describes; ValueError without a scale."""
        if scale is None:
            raise ValueError("'scale' is missing: the numbers have no unit")
        return cls(scale)

    @classmethod
    def of_labels(cls, labels: Iterable[str], reserved: Sequence[str]) -> Regress:
        """Return the task of training data; raises DataError where all labels are the same."""
        if reserved:
            raise ConfigError("numbers have no labels to reserve", where="--reserve-labels", hint="leave it out")
        numbers = np.array([float(label) for label in labels])
        deviation = float(numbers.std())
        if deviation < SMALLEST_DEVIATION or np.ptp(numbers) == 0:
            raise DataError("all labels of the training data are the same number", hint="there is nothing to learn")
        return cls(Scale(float(numbers.mean()), deviation))

    def fitted(self, measured: Mapping[str, Any]) -> Regress:
        """Return the task itself: its scale is the training data's, whatever was measured."""
        return self

    @property
    def form(self) -> Numbers:
        """Return how a label is read: a number."""
        return Numbers()

    def targets(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return the standardised labels."""
        numbers = np.array([math.nan if label is None else float(label) for label in labels], np.float64)
        return ((numbers - self.scale.mean) / self.scale.deviation).astype(np.float32).reshape(-1, 1)

    def chance(self, targets: np.ndarray) -> float:
        """Return what the label that is farthest from the mean costs who names the mean, at least the variance, 1."""
        return max(1.0, float(np.nanmax(np.square(targets), initial=0.0)))

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the tenth of the ranking that each example is in."""
        places = np.argsort(np.argsort(targets[:, 0], kind="stable"), kind="stable")
        return places * STRATA // max(len(targets), 1)

    def evaluation(self, encoded: Encoded | None = None) -> RegressEvaluation:
        """Return a new, empty evaluation."""
        return RegressEvaluation(self.scale)

    def said(self, logits: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Return the standardised answers, float64 [N]."""
        return logits[:, 0].astype(np.float64)

    def no_answers(self, targets: np.ndarray) -> np.ndarray:
        """Return the mean for every example, which correlates with nothing."""
        return np.zeros(len(targets))

    def scorer(self, targets: np.ndarray, said: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return the score as a function of how often each example counts."""
        return partial(self.score, targets, said)

    def score(self, targets: np.ndarray, said: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Return Pearson's correlation."""
        return pearson(targets[:, 0], said, weights)

    def score_figures(self, targets: np.ndarray, said: np.ndarray) -> dict[str, float]:
        """Return Pearson's and Spearman's correlation, and the error in the user's unit."""
        truth = targets[:, 0].astype(np.float64)
        error = self.scale.deviation * math.sqrt(float(np.square(truth - said).mean()))
        return {"pearson": pearson(truth, said), "spearman": spearman(truth, said), "rmse": error}

    def credits(self, targets: np.ndarray, logits: np.ndarray, *_: Any) -> np.ndarray:
        """Return 1 - the squared error in units of the training data's variance."""
        return 1.0 - np.square(targets[:, 0].astype(np.float64) - self.said(logits))

    def says_one_thing(self, targets: np.ndarray, logits: np.ndarray) -> bool:
        """Say whether every example is given the same answer though not all have the same target."""
        return all_alike(self.said(logits)) and not all_alike(targets)

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples have a label."""
        return np.isfinite(targets[:, 0])

    def answers(
        self, logits: np.ndarray, top: int, encoded: Encoded | None = None, texts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the number for each text, in the user's unit."""
        values = self.scale.mean + self.scale.deviation * self.said(logits)
        return [{"value": float(f"{value:.{DIGITS}g}")} for value in values]

    def no_answer(self, top: int) -> dict[str, Any]:
        """Return an answer without a number."""
        return {"value": None}

    @staticmethod
    def label_of(answer: Mapping[str, Any]) -> Any:
        """Return the number that an answer tells."""
        return answer["value"]

    @staticmethod
    def answer_text(answer: Mapping[str, Any]) -> str:
        """Return one answer in a column for people."""
        return f"{'-' if answer['value'] is None else format(answer['value'], '.5g'):>12}"

    @staticmethod
    def weakest(document: Mapping[str, Any]) -> str:
        """Return nothing: there are no labels to tell apart."""
        return ""


class RegressEvaluation:
    """Collects answers and targets batch by batch: a correlation of ranks needs all of them, 16 bytes an example."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._targets: list[np.ndarray] = []
        self._said: list[np.ndarray] = []

    def add(self, logits: np.ndarray, targets: np.ndarray, indices: np.ndarray | None = None) -> None:
        """Add a batch: logits and targets float [B, 1]; rows whose target is NaN are left out."""
        known = np.isfinite(targets[:, 0])
        self._targets.append(targets[known, 0].astype(np.float64))
        self._said.append(logits[known, 0].astype(np.float64))

    def result(self, *, fit: bool = False) -> Metrics:
        """Return the metrics of all that was added; ValueError when that is nothing. The best has the least error."""
        truth, said = (np.concatenate([np.zeros(0), *parts]) for parts in (self._targets, self._said))
        if not len(truth):
            raise ValueError("no labelled example to evaluate on")
        loss = math.fsum(np.square(said - truth)) / len(truth)
        figures = {
            "pearson": pearson(truth, said),
            "spearman": spearman(truth, said),
            "rmse": self.scale.deviation * math.sqrt(loss),
        }
        return Metrics(len(truth), loss, -loss, figures)


def pearson(a: np.ndarray, b: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the correlation of two arrays [N], each pair counted `weights` times; 0 where one of them is constant."""
    counted = np.ones(len(a)) if weights is None else weights
    kept = counted > 0
    counted, pair = counted[kept], [side[kept].astype(np.float64) for side in (a, b)]
    if not len(counted) or any(np.ptp(side) == 0 or not np.isfinite(side).all() for side in pair):
        return 0.0
    x, y = (side - np.average(side, weights=counted) for side in pair)
    # Divided before they are squared, so that neither the largest nor the smallest numbers are lost.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    spread = math.sqrt(float(counted @ (x * x)) * float(counted @ (y * y)))
    return min(1.0, max(-1.0, float(counted @ (x * y)) / spread))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation of the ranks, equal values sharing the mean of theirs; 0 where one is constant."""
    return pearson(_ranks(a), _ranks(b))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks
