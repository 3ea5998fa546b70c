"""Classification metrics from a confusion matrix; numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

__all__ = ["Evaluation", "Metrics", "cross_entropy"]


@dataclass(frozen=True, slots=True)
class Metrics:
    """The result of an evaluation; the loss is in nats.

    `support`, `predicted` and `correct` count the examples of each class: labelled, predicted, both.
    """

    examples: int
    loss: float
    accuracy: float
    macro_f1: float
    matthews: float
    support: tuple[int, ...]
    predicted: tuple[int, ...]
    correct: tuple[int, ...]


class Evaluation:
    """Collects logits and labels batch by batch, in memory that depends on the number of classes alone."""

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)  # row: label, column: prediction
        self.loss_sum = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch: logits float [B, C], labels int [B]; rows with the label -1 are left out."""
        known = labels >= 0
        logits, labels = logits[known], labels[known]
        np.add.at(self.confusion, (labels, logits.argmax(axis=1)), 1)
        self.loss_sum += math.fsum(cross_entropy(logits, labels))

    def result(self) -> Metrics:
        """Return the metrics of all that was added; ValueError when that is nothing."""
        examples = int(self.confusion.sum())
        if examples == 0:
            raise ValueError("no labelled example to evaluate on")
        support = self.confusion.sum(axis=1)
        predicted = self.confusion.sum(axis=0)
        correct = self.confusion.diagonal()
        return Metrics(
            examples=examples,
            loss=self.loss_sum / examples,
            accuracy=int(correct.sum()) / examples,
            macro_f1=_macro_f1(support, predicted, correct),
            matthews=_matthews(support, predicted, correct),
            support=tuple(support.tolist()),
            predicted=tuple(predicted.tolist()),
            correct=tuple(correct.tolist()),
        )


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the loss of each row in nats, float64 [B], computed in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(labels)), labels]


def _macro_f1(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> float:
    """Mean F1 of the classes that occur as a label or as a prediction."""
    total = support + predicted
    occurs = total > 0
    return float((2 * correct[occurs] / total[occurs]).mean())


def _matthews(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> float:
    """R_K of Gorodkin (2004), which for two classes is Matthews' coefficient; 0 where it is not defined."""
    labelled, chosen = support.tolist(), predicted.tolist()  # Python integers do not overflow
    examples = sum(labelled)
    agreement = sum(correct.tolist()) * examples - sum(a * b for a, b in zip(labelled, chosen, strict=True))
    spread = (examples**2 - sum(a * a for a in labelled)) * (examples**2 - sum(b * b for b in chosen))
    return agreement / math.sqrt(spread) if spread else 0.0
