"""Any number of labels a text: sigmoid with binary cross-entropy; micro and macro F1; a threshold that is fitted.

A label is said where its probability reaches the threshold: 0.5, until training measures held-out examples and takes
the one with the best micro F1 on them. An answer's credit is its own F1, 1 where text and answer have no label at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from edge_far.bundles.manifest import Scale, TaskInfo
from edge_far.errors import ConfigError, DataError
from edge_far.quoting import quoted, shown
from edge_far.tasks.counting import by_label, f1, f1_of_each, macro_f1
from edge_far.tasks.interface import Metrics, all_alike, weakest_labels
from edge_far.texts.data import label_names
from edge_far.texts.encode import Encoded
from edge_far.texts.labels import NameLists
from edge_far.texts.targets import TokenTargets

__all__ = ["Multilabel", "MultilabelEvaluation", "best_threshold"]

NAME = "multilabel"
USUAL_THRESHOLD = 0.5


class Multilabel:
    """The task of `labels`, of which a text has any number; targets are float32 [N, labels], 0 or 1, NaN for none."""

    form_name = "names"
    problem_type: str | None = "multi_label_classification"
    score_title = "micro F1"
    credit_name = "example_f1"
    head_class = "SequenceClassification"
    reading: TokenTargets | None = None
    right_or_wrong = False

    def __init__(self, labels: Sequence[str], threshold: float = USUAL_THRESHOLD) -> None:
        self.labels = tuple(labels)
        self.threshold = threshold
        self.info = TaskInfo(NAME, form=self.form_name, loss="sigmoid", outputs=len(self.labels))

    @classmethod
    def made(cls, labels: Sequence[str], scale: Scale | None, threshold: float | None) -> Multilabel:
        """Return the task that a bundle or a release describes."""
        return cls(labels, USUAL_THRESHOLD if threshold is None else threshold)

    @classmethod
    def of_labels(cls, labels: Iterable[str], reserved: Sequence[str]) -> Multilabel:
        """Return the task of training data; raises DataError where no example has a label."""
        if reserved:
            raise ConfigError(
                "lists of labels have no places for others", where="--reserve-labels", hint="leave it out"
            )
        names = label_names(name for label in labels for name in json.loads(label))
        if not names:
            raise DataError("no example of the training data has a label", hint="there is nothing to learn")
        return cls(names)

    def fitted(self, measured: Mapping[str, Any]) -> Multilabel:
        """Return the task with the threshold that a run measured, where it did."""
        return Multilabel(self.labels, float(measured.get("threshold", self.threshold)))

    @property
    def outputs(self) -> int:
        """Return the number of labels."""
        return len(self.labels)

    @property
    def form(self) -> NameLists:
        """Return how a label is read: a list of names."""
        return NameLists(self.labels)

    def targets(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return 1 for each label that an example has; raises DataError for an unknown one."""
        places = {name: place for place, name in enumerate(self.labels)}
        found = np.zeros((len(labels), len(places)), np.float32)
        for row, label in enumerate(labels):
            if label is None:
                found[row] = math.nan
                continue
            for name in json.loads(label):
                if name not in places:
                    raise DataError(f"unknown label {quoted(name)}", hint=f"the bundle has {len(places)} labels")
                found[row, places[name]] = 1.0
        return found

    def chance(self, targets: np.ndarray) -> float:
        """Return the loss of a coin thrown for each label."""
        return math.log(2)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the rarest label of each example, and one more number for those without any."""
        order = np.argsort(targets.sum(axis=0), kind="stable")
        has = targets[:, order] > 0
        return np.where(has.any(axis=1), order[has.argmax(axis=1)], len(order))

    def evaluation(self, encoded: Encoded | None = None) -> MultilabelEvaluation:
        """Return a new, empty evaluation."""
        return MultilabelEvaluation(self.labels, self.threshold)

    def said(self, logits: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Return which labels are said, bool [N, labels]."""
        found: np.ndarray = _probabilities(logits) >= self.threshold
        return found

    def no_answers(self, targets: np.ndarray) -> np.ndarray:
        """Return no label for every example."""
        return np.zeros((len(targets), self.outputs), bool)

    def scorer(self, targets: np.ndarray, said: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return the score as a function of how often each example counts."""
        return partial(self.score, targets, said)

    def score(self, targets: np.ndarray, said: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Return the micro F1."""
        weights = np.ones(len(targets)) if weights is None else weights
        counted = (weights @ part for part in (targets > 0, said, (targets > 0) & said))
        support, predicted, correct = (float(part.sum()) for part in counted)
        return f1(support, predicted, correct)

    def score_figures(self, targets: np.ndarray, said: np.ndarray) -> dict[str, float]:
        """Return micro and macro F1."""
        truth = targets > 0
        counts = (truth.sum(axis=0), said.sum(axis=0), (truth & said).sum(axis=0))
        return {"micro_f1": self.score(targets, said), "macro_f1": macro_f1(*counts)}

    def credits(self, targets: np.ndarray, logits: np.ndarray, *_: Any) -> np.ndarray:
        """Return each example's own F1, 1 where there is no label and none is said."""
        truth, said = targets > 0, self.said(logits)
        return f1_of_each(*(part.sum(axis=1) for part in (truth, said, truth & said)))

    def says_one_thing(self, targets: np.ndarray, logits: np.ndarray) -> bool:
        """Say whether every example is given the same answer though not all have the same target."""
        return all_alike(self.said(logits)) and not all_alike(targets)

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples have a list of labels."""
        return np.isfinite(targets).all(axis=1)

    def answers(
        self, logits: np.ndarray, top: int, encoded: Encoded | None = None, texts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the labels that are said, the likeliest first, with their probabilities; and the `top` likeliest."""
        told = []
        for row in _probabilities(logits):
            ranked = [(self.labels[place], round(float(row[place]), 6)) for place in np.argsort(-row, kind="stable")]
            said = ranked[: int((row >= self.threshold).sum())]
            answer: dict[str, Any] = {
                "labels": [name for name, _ in said],
                "probabilities": [probability for _, probability in said],
            }
            if top > 1:
                answer["top"] = [{"label": name, "probability": probability} for name, probability in ranked[:top]]
            told.append(answer)
        return told

    def no_answer(self, top: int) -> dict[str, Any]:
        """Return an answer that says nothing."""
        return {"labels": None, "probabilities": None, **({"top": []} if top > 1 else {})}

    @staticmethod
    def label_of(answer: Mapping[str, Any]) -> Any:
        """Return the names that an answer tells."""
        return answer["labels"]

    @staticmethod
    def answer_text(answer: Mapping[str, Any]) -> str:
        """Return one answer in a column for people."""
        if answer["labels"] is None:
            return f"{'-':<30}"
        return f"{', '.join(map(shown, answer['labels'])) or '(none)':<30}"

    @staticmethod
    def weakest(document: Mapping[str, Any]) -> str:
        """Return the labels that the document of an evaluation found hardest, or nothing."""
        return weakest_labels(document["classes"])


class MultilabelEvaluation:
    """Collects answers and targets batch by batch: a threshold is fitted on all of them, 9 bytes a label of each."""

    def __init__(self, labels: Sequence[str], threshold: float) -> None:
        self.labels = tuple(labels)
        self.threshold = threshold
        self._loss_sum = 0.0
        self._truth = [np.zeros((0, len(labels)), bool)]
        self._odds = [np.zeros((0, len(labels)))]

    def add(self, logits: np.ndarray, targets: np.ndarray, indices: np.ndarray | None = None) -> None:
        """Add a batch: logits and targets float [B, labels]; rows whose targets are NaN are left out."""
        known = np.isfinite(targets).all(axis=1)
        wide, wanted = logits[known].astype(np.float64), targets[known].astype(np.float64)
        losses = np.logaddexp(0.0, wide) - wanted * wide
        self._loss_sum += math.fsum(losses.mean(axis=1)) if len(losses) else 0.0
        self._truth.append(wanted > 0)
        self._odds.append(_probabilities(wide))

    def result(self, *, fit: bool = False) -> Metrics:
        """Return the metrics of all that was added, with `fit` at the best threshold; ValueError for nothing."""
        truth, odds = np.concatenate(self._truth), np.concatenate(self._odds)
        if not len(truth):
            raise ValueError("no labelled example to evaluate on")
        threshold = best_threshold(truth, odds) if fit else self.threshold
        said = odds >= threshold
        counts = [part.sum(axis=0) for part in (truth, said, truth & said)]
        figures = {"micro_f1": f1(*(int(part.sum()) for part in counts)), "macro_f1": macro_f1(*counts)}
        classes = by_label(self.labels, *counts)
        loss = self._loss_sum / len(truth)
        return Metrics(len(truth), loss, figures["micro_f1"], figures, {"classes": classes}, {"threshold": threshold})


def best_threshold(truth: np.ndarray, odds: np.ndarray) -> float:
    """Return the threshold with the best micro F1 on truth bool and probabilities [N, labels].

    Of two probabilities next to each other it is the middle, so that no example lies on it; 0.5 where no label is true.
    """
    order = np.argsort(-odds, axis=None, kind="stable")
    values, hits = odds.reshape(-1)[order], truth.reshape(-1)[order]
    support = int(hits.sum())
    if support == 0:
        return USUAL_THRESHOLD
    scores = 2 * np.cumsum(hits) / (np.arange(1, len(hits) + 1) + support)
    scores[:-1][values[:-1] == values[1:]] = -1.0  # equal ones are said together
    last = int(scores.argmax())
    below = values[last + 1] if last + 1 < len(values) else 0.0
    return float(round((values[last] + below) / 2, 9))


def _probabilities(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    odds: np.ndarray = np.exp(-np.logaddexp(0.0, -wide))
    return odds
