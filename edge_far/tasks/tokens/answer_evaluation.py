"""Measures spans: the best of each question over all its windows, SQuAD's figures, and the threshold of no answer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np

from edge_far.tasks.interface import Metrics
from edge_far.tasks.tokens.spans import NO_SPAN, best_span, best_threshold, squad_scores
from edge_far.texts.encode import Encoded

__all__ = ["AnswerEvaluation", "Questions", "decided", "known_windows", "overlaps", "places_of", "true_spans"]


class AnswerEvaluation:
    """Collects the best span of each window batch by batch."""

    def __init__(self, threshold: float | None, encoded: Encoded | None) -> None:
        self.threshold = threshold
        self._encoded = encoded
        self._rows = 0
        self._loss_sum = self._overlap = 0.0
        self._best: dict[int, tuple[float, str]] = {}  # of an example: score and text
        self._none: dict[int, float] = {}

    def add(self, logits: np.ndarray, targets: np.ndarray, indices: np.ndarray | None = None) -> None:
        """Add a batch: logits and targets float [B, S, 2], and which rows they are; those without a target are not."""
        known = known_windows(targets)
        logits, targets = logits[known].astype(np.float64), targets[known]
        spans, scores, none = best_span(logits, targets)
        said = decided(spans, scores, none, self.threshold)
        self._rows += len(targets)
        self._overlap += float(overlaps(true_spans(targets), said).sum())
        masked = np.where(targets >= 0, logits, -np.inf)
        losses = np.logaddexp.reduce(masked, axis=1) - (logits * (targets == 1)).sum(axis=1)
        self._loss_sum += math.fsum(losses.mean(axis=1))
        if self._encoded is not None and indices is not None:
            for row, span, score, nothing in zip(indices[known].tolist(), spans, scores, none, strict=True):
                self._note(row, span, float(score), float(nothing))

    def _note(self, row: int, span: np.ndarray, score: float, nothing: float) -> None:
        encoded = self._encoded
        assert encoded is not None and encoded.examples is not None
        example = int(encoded.examples[row])
        self._none[example] = min(nothing, self._none.get(example, math.inf))
        if span[0] != NO_SPAN and score > self._best.get(example, (-math.inf, ""))[0]:
            places = places_of(encoded, row)
            text = str(encoded.texts[example].text_pair)[places[span[0], 0] : places[span[1], 1]]
            self._best[example] = (score, text)

    def result(self, *, fit: bool = False) -> Metrics:
        """Return the metrics of all that was added; ValueError when that is nothing.

        With `fit`, and examples without an answer among them, the threshold is the one with the best F1.
        """
        if not self._rows:
            raise ValueError("no labelled example to evaluate on")
        loss, overlap = self._loss_sum / self._rows, self._overlap / self._rows
        if self._encoded is None:
            return Metrics(self._rows, loss, overlap, {"overlap_f1": overlap})
        questions = self.questions()
        threshold = self.threshold
        if fit and not questions.all_answered:
            threshold = best_threshold(questions.odds, questions.said[:, 1], questions.silent[:, 1])
        exact, f1 = questions.scores(threshold).mean(axis=0)
        settings = {} if threshold is None else {"null_threshold": threshold}
        figures = {"answer_f1": float(f1), "exact_match": float(exact)}
        return Metrics(len(questions.odds), loss, float(f1), figures, {}, settings)

    def questions(self) -> Questions:
        """Return what is known of each question that was added, in the examples' order."""
        assert self._encoded is not None
        numbers = sorted(self._none)
        golds = [json.loads(self._encoded.texts[number].label or "[]") for number in numbers]
        best = [self._best.get(number, (-math.inf, "")) for number in numbers]
        texts = [[text for _, text in gold] for gold in golds]
        return Questions(
            np.array([squad_scores(text, gold) for (_, text), gold in zip(best, texts, strict=True)]).reshape(-1, 2),
            np.array([squad_scores("", gold) for gold in texts]).reshape(-1, 2),
            np.array([self._none[number] - score for number, (score, _) in zip(numbers, best, strict=True)]),
            all(golds),
        )


@dataclass(frozen=True, eq=False)
class Questions:
    """Exact match and F1 of each question, float64 [N, 2], where its best span is said, and where nothing is.

    `odds` is how far the logits of no answer are above that span's, float64 [N]; `all_answered` says that none is
    without an answer.
    """

    said: np.ndarray
    silent: np.ndarray
    odds: np.ndarray
    all_answered: bool

    def scores(self, threshold: float | None) -> np.ndarray:
        """Return exact match and F1 of each question by the threshold, float64 [N, 2]."""
        if threshold is None:
            return self.said
        return np.where((self.odds <= threshold)[:, None], self.said, self.silent)


def decided(spans: np.ndarray, scores: np.ndarray, none: np.ndarray, threshold: float | None) -> np.ndarray:
    """Return the spans that best_span found, NO_SPAN where none is said by the threshold."""
    if threshold is None:
        return spans
    return np.where((none - scores > threshold)[:, None], NO_SPAN, spans)


def known_windows(targets: np.ndarray) -> np.ndarray:
    """Return which windows have a target, bool [N]."""
    return np.asarray((targets[:, :, 0] == 1).any(axis=1))


def places_of(encoded: Encoded, row: int) -> np.ndarray:
    assert encoded.places is not None
    return encoded.places[encoded.starts[row] : encoded.starts[row + 1]]


def true_spans(targets: np.ndarray) -> np.ndarray:
    """Return first and last token of each window's answer, int64 [N, 2]."""
    return (targets == 1).argmax(axis=1)


def overlaps(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Return the F1 of the tokens that two spans share, float64 [N]."""
    shared = np.minimum(truth[:, 1], said[:, 1]) - np.maximum(truth[:, 0], said[:, 0]) + 1
    total = (truth[:, 1] - truth[:, 0] + 1) + (said[:, 1] - said[:, 0] + 1)
    return np.array(2.0 * np.maximum(shared, 0) / total)
