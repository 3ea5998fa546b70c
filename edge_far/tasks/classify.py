"""One label a text: softmax with cross-entropy; accuracy, macro-F1 and Matthews' correlation; right or wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from edge_far.bundles.manifest import Scale, TaskInfo
from edge_far.errors import ConfigError, DataError
from edge_far.quoting import shown
from edge_far.tasks.counting import by_label, macro_f1
from edge_far.tasks.figures import FIGURES
from edge_far.tasks.interface import Metrics, all_alike, weakest_labels
from edge_far.texts.data import label_names
from edge_far.texts.encode import Encoded
from edge_far.texts.labels import Names
from edge_far.texts.places import free_places, is_place
from edge_far.texts.targets import TokenTargets, class_numbers

__all__ = ["Classify", "ClassifyEvaluation", "cross_entropy"]

NAME = "classify"
NO_LABEL = -1


class Classify:
    """The task of `labels`, of which each text has one; targets are their numbers, int64 [N], -1 for none.

    Some may be places for labels to come (texts/places.py), which are never said.
    """

    form_name = "name"
    problem_type: str | None = "single_label_classification"
    score_title = "Matthews' correlation"
    credit_name = "accuracy"
    head_class = "SequenceClassification"
    reading: TokenTargets | None = None
    right_or_wrong = True
    threshold = None

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.info = TaskInfo(NAME, form=self.form_name, loss="softmax", outputs=len(self.labels))

    @classmethod
    def made(cls, labels: Sequence[str], scale: Scale | None, threshold: float | None) -> Classify:
        """Return the task that a bundle or a release describes."""
        return cls(labels)

    @classmethod
    def of_labels(cls, labels: Iterable[str], reserved: Sequence[str]) -> Classify:
        """Return the task of training data; raises DataError where there is nothing to tell apart."""
        names = label_names(labels)
        if taken := next(filter(is_place, names), None):
            message = f"the label '{taken}' is called like a place for labels to come"
            raise ConfigError(message, hint="give it another name")
        names += reserved
        if len(names) < 2:
            raise DataError("the training data has fewer than two labels", hint="add examples of another label")
        return cls(names)

    def fitted(self, measured: Mapping[str, Any]) -> Classify:
        """Return the task itself: the likeliest label is said, whatever was measured."""
        return self

    @property
    def outputs(self) -> int:
        """Return the number of labels."""
        return len(self.labels)

    @property
    def form(self) -> Names:
        """Return how a label is read: a name."""
        return Names([label for label in self.labels if not is_place(label)])

    def chance(self, targets: np.ndarray) -> float:
        """Return the loss of a guess in nats, the same for every example."""
        return math.log(max(self.outputs, 2))

    def targets(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return the number of each label; raises DataError for an unknown one."""
        return class_numbers(self.labels, labels)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the labels themselves."""
        return targets

    def evaluation(self, encoded: Encoded | None = None) -> ClassifyEvaluation:
        """Return a new, empty evaluation."""
        return ClassifyEvaluation(self.labels)

    def said(self, logits: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Return the number of the likeliest label, int64 [N]."""
        return _likeliest(logits, free_places(self.labels))

    def no_answers(self, targets: np.ndarray) -> np.ndarray:
        """Return a label that there is not."""
        return np.full(len(targets), NO_LABEL)

    def scorer(self, targets: np.ndarray, said: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return the score as a function of how often each example counts."""
        return partial(self.score, targets, said)

    def score(self, targets: np.ndarray, said: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Return Matthews' correlation."""
        weights = np.ones(len(targets)) if weights is None else weights
        labels = int(max(targets.max(), said.max())) + 2
        support = np.bincount(targets + 1, weights, labels)
        predicted = np.bincount(said + 1, weights, labels)
        total, right = weights.sum(), weights[targets == said].sum()
        spread = (total**2 - (support**2).sum()) * (total**2 - (predicted**2).sum())
        return float((right * total - support @ predicted) / spread**0.5) if spread > 0 else 0.0

    def score_figures(self, targets: np.ndarray, said: np.ndarray) -> dict[str, float]:
        """Return Matthews' correlation, the accuracy and its standard error."""
        accuracy = float((targets == said).mean())
        error = (accuracy * (1 - accuracy) / len(targets)) ** 0.5
        return {"matthews": self.score(targets, said), "accuracy": accuracy, "accuracy_error": error}

    def credits(self, targets: np.ndarray, logits: np.ndarray, *_: Any) -> np.ndarray:
        """Return 1 where an answer is right, else 0."""
        return (self.said(logits) == targets).astype(np.float64)

    def says_one_thing(self, targets: np.ndarray, logits: np.ndarray) -> bool:
        """Say whether every example is given the same answer though not all have the same target."""
        return all_alike(self.said(logits)) and not all_alike(targets)

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples have a label."""
        found: np.ndarray = targets != NO_LABEL
        return found

    def answers(
        self, logits: np.ndarray, top: int, encoded: Encoded | None = None, texts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return label and probability of the likeliest label, and of the `top` likeliest where that is above 1."""
        wide, free = logits.astype(np.float64), free_places(self.labels)
        wide[:, free] = -np.inf
        odds = np.exp(wide - wide.max(axis=1, keepdims=True))
        told = []
        for row in odds / odds.sum(axis=1, keepdims=True):
            best = np.argsort(-row, kind="stable")[: min(top, len(row) - len(free))]
            ranked = [{"label": self.labels[index], "probability": round(float(row[index]), 6)} for index in best]
            told.append({**ranked[0], **({"top": ranked} if top > 1 else {})})
        return told

    def no_answer(self, top: int) -> dict[str, Any]:
        """Return an answer without a label."""
        return {"label": None, "probability": None, **({"top": []} if top > 1 else {})}

    @staticmethod
    def label_of(answer: Mapping[str, Any]) -> Any:
        """Return the name that an answer tells."""
        return answer["label"]

    @staticmethod
    def answer_text(answer: Mapping[str, Any]) -> str:
        """Return one answer in a column for people."""
        label, probability = answer["label"], answer["probability"]
        return f"{'-':<24} {'-':<5}" if label is None else f"{shown(label):<24} {probability:.3f}"

    @staticmethod
    def weakest(document: Mapping[str, Any]) -> str:
        """Return the labels that the document of an evaluation found hardest, or nothing."""
        return weakest_labels(document["classes"])


class ClassifyEvaluation:
    """Collects logits and labels batch by batch, in memory that depends on the number of classes alone."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._free = free_places(labels)
        self.confusion = np.zeros((len(labels), len(labels)), np.int64)  # row: label, column: prediction
        self.loss_sum = 0.0

    def add(self, logits: np.ndarray, targets: np.ndarray, indices: np.ndarray | None = None) -> None:
        """Add a batch: logits float [B, C], labels int [B]; rows with the label -1 are left out."""
        known = targets >= 0
        logits, targets = logits[known], targets[known]
        np.add.at(self.confusion, (targets, _likeliest(logits, self._free)), 1)
        self.loss_sum += math.fsum(cross_entropy(logits, targets))

    def result(self, *, fit: bool = False) -> Metrics:
        """Return the metrics of all that was added; ValueError when that is nothing."""
        examples = int(self.confusion.sum())
        if examples == 0:
            raise ValueError("no labelled example to evaluate on")
        support = self.confusion.sum(axis=1)
        predicted = self.confusion.sum(axis=0)
        correct = self.confusion.diagonal()
        figures = {
            "accuracy": int(correct.sum()) / examples,
            "macro_f1": macro_f1(support, predicted, correct),
            "matthews": _matthews(support, predicted, correct),
        }
        assert figures.keys() <= FIGURES.keys()
        loss = self.loss_sum / examples
        classes = by_label(self.labels, support, predicted, correct)
        details = {"classes": classes, "confusion": self._answered()}
        return Metrics(examples, loss, figures["accuracy"], figures, details)

    def _answered(self) -> dict[str, dict[str, int]]:
        """Return how often each label was answered by which; what never happened is left out."""
        rows = {
            label: {said: count for said, count in zip(self.labels, row, strict=True) if count}
            for label, row in zip(self.labels, self.confusion.tolist(), strict=True)
        }
        return {label: row for label, row in rows.items() if row}


def _likeliest(logits: np.ndarray, free: Sequence[int]) -> np.ndarray:
    """Return the number of the likeliest label, int64 [N]; a free place is none."""
    if free:
        logits = logits.copy()
        logits[:, free] = -np.inf
    return np.asarray(logits.argmax(axis=1))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the loss of each row in nats, float64 [B], computed in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(labels)), labels]


def _matthews(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> float:
    """R_K of Gorodkin (2004), which for two classes is Matthews' coefficient; 0 where it is not defined."""
    labelled, chosen = support.tolist(), predicted.tolist()  # Python integers do not overflow
    examples = sum(labelled)
    agreement = sum(correct.tolist()) * examples - sum(a * b for a, b in zip(labelled, chosen, strict=True))
    spread = (examples**2 - sum(a * a for a in labelled)) * (examples**2 - sum(b * b for b in chosen))
    return agreement / math.sqrt(spread) if spread else 0.0
