"""A span of the pair that answers the text, or none: softmax over the places where it may begin, and end.

A long pair is read in windows that overlap; each is a row, whose target is the answer where it lies in it whole, else
the first token, which stands for none. Only tokens of the pair and that first one can be said. An answer is the span
of at most LONGEST tokens with the largest sum of logits, over all windows of an example. None is said where the first
token's sum, the smallest of the windows', is above it by more than the threshold: training fits that on held-out
examples where some have no answer; without it something is always said.

Exact match and F1 are SQuAD's (Rajpurkar et al. 2016, 2018): without case, punctuation and articles, the best of an
example's answers, by words. The gate compares that F1, question by question; the choice of a rung compares windows: the
F1 of the tokens that the span said and the true one share, 1 where both are none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_far.bundles.manifest import Scale, TaskInfo
from edge_far.errors import ConfigError, DataError
from edge_far.quoting import shown
from edge_far.tasks.interface import all_alike
from edge_far.tasks.tokens.answer_evaluation import (
    AnswerEvaluation,
    decided,
    known_windows,
    overlaps,
    places_of,
    true_spans,
)
from edge_far.tasks.tokens.spans import NO_SPAN, Candidate, best_span, candidates
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoded
from edge_far.texts.labels import Answers
from edge_far.texts.targets import Places, TokenTargets

__all__ = ["Answer", "AnswerTargets"]

NAME = "answer"
DIGITS = 6
RANKED = 20  # spans over which probabilities are taken


class Answer:
    """The task of spans; targets are float32 [N, tokens, 2], see AnswerTargets. It has no labels."""

    form_name = "answers"
    problem_type: str | None = None
    head_class = "QuestionAnswering"
    score_title = "the F1 of tokens"
    credit_name = "answer_f1"
    right_or_wrong = False
    labels: tuple[str, ...] = ()
    outputs = 2

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold
        self.info = TaskInfo(NAME, form=self.form_name, loss="span", outputs=self.outputs)

    @classmethod
    def made(cls, labels: Sequence[str], scale: Scale | None, threshold: float | None) -> Answer:
        """Return the task that a bundle or a release describes."""
        return cls(threshold)

    @classmethod
    def of_labels(cls, labels: Iterable[str], reserved: Sequence[str]) -> Answer:
        """Return the task of training data; raises DataError where no example has an answer."""
        if reserved:
            raise ConfigError("answers have no labels to reserve", where="--reserve-labels", hint="leave it out")
        if not any(json.loads(label) for label in labels):
            raise DataError("no example of the training data has an answer", hint="there is nothing to learn")
        return cls()

    def fitted(self, measured: Mapping[str, Any]) -> Answer:
        """Return the task with the threshold that a run measured, where it did."""
        return Answer(measured.get("null_threshold", self.threshold))

    @property
    def form(self) -> Answers:
        """Return how a label is read: spans."""
        return Answers()

    @property
    def targets(self) -> AnswerTargets:
        """Return what gives tokens their targets."""
        return AnswerTargets()

    @property
    def reading(self) -> AnswerTargets:
        """Return the same: it says which tokens can be said."""
        return AnswerTargets()

    def chance(self, targets: np.ndarray) -> float:
        """Return the loss of a guess among the places of a window of mean length, in nats."""
        rows = max(1.0, float((targets[:, 0] == 1).sum()))
        return math.log(max(2.0, float((targets[:, 0] >= 0).sum()) / rows))

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return 1 where a window has an answer, else 0."""
        return (true_spans(targets)[:, 0] > 0).astype(np.int64)

    # --- measuring --------------------------------------------------------------------------------------------------

    def evaluation(self, encoded: Encoded | None = None) -> AnswerEvaluation:
        """Return a new, empty evaluation; without the examples it knows windows alone."""
        return AnswerEvaluation(self.threshold, encoded)

    def said(self, logits: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Return first and last token of the span said of each window, int64 [N, 2], or NO_SPAN twice."""
        assert targets is not None
        return decided(*best_span(logits, targets), self.threshold)

    def no_answers(self, targets: np.ndarray) -> np.ndarray:
        """Return no span for every window."""
        return np.full((len(targets), 2), NO_SPAN)

    def scorer(self, targets: np.ndarray, said: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return what gives the mean F1 of tokens, each window counted so many times."""
        shares = overlaps(true_spans(targets), said)
        return lambda weights: float(weights @ shares / max(weights.sum(), 1.0))

    def score(self, targets: np.ndarray, said: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Return the mean F1 of tokens."""
        return self.scorer(targets, said)(np.ones(len(targets)) if weights is None else weights)

    def score_figures(self, targets: np.ndarray, said: np.ndarray) -> dict[str, float]:
        """Return the mean F1 of tokens."""
        return {"overlap_f1": self.score(targets, said)}

    def credits(
        self, targets: np.ndarray, logits: np.ndarray, encoded: Encoded | None = None, indices: np.ndarray | None = None
    ) -> np.ndarray:
        """Return SQuAD's F1 of each question, in their order; without the examples the F1 of tokens by window."""
        if encoded is None:
            return overlaps(true_spans(targets), self.said(logits, targets))
        evaluation = self.evaluation(encoded)
        evaluation.add(logits, targets, np.arange(len(targets)) if indices is None else indices)
        questions = evaluation.questions()
        return questions.scores(self.threshold)[:, 1]

    def says_one_thing(self, targets: np.ndarray, logits: np.ndarray) -> bool:
        """Say whether every window is given the same answer though not all have the same."""
        return all_alike(self.said(logits, targets)) and not all_alike(true_spans(targets))

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which windows have a target."""
        return known_windows(targets)

    # --- telling ----------------------------------------------------------------------------------------------------

    def answers(
        self, logits: np.ndarray, top: int, encoded: Encoded | None = None, texts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return the answer to each text, where it stands in the pair, and its probability; and the `top` likeliest.

        Probabilities are among the best RANKED spans of all windows, and none where there is a threshold.
        """
        assert encoded is not None and encoded.examples is not None
        # Windows stand in the order of their examples.
        ends = np.cumsum(np.bincount(encoded.examples, minlength=len(encoded.texts)))
        rows = np.split(np.arange(len(encoded)), ends[:-1])
        return [
            self._answer(encoded, logits, own, str(example.text_pair), top)
            for own, example in zip(rows, encoded.texts, strict=True)
        ]

    def _answer(self, encoded: Encoded, logits: np.ndarray, rows: np.ndarray, pair: str, top: int) -> dict[str, Any]:
        found: list[Candidate] = []
        none = math.inf
        for row in rows:
            targets, places = encoded.targets_of(np.array([row]))[0], places_of(encoded, int(row))
            none = min(none, float(logits[row, 0].astype(np.float64).sum()))
            found += candidates(logits[row], targets, places, pair, RANKED)
        unique = {each.text: each for each in sorted(found, key=lambda each: each.score)}
        ranked = sorted(unique.values(), key=lambda each: -each.score)[:RANKED]
        if not ranked:
            return self.no_answer(top)
        scores = np.array([each.score for each in ranked] + ([none] if self.threshold is not None else []))
        odds = np.exp(scores - np.logaddexp.reduce(scores))
        told = [
            {"answer": each.text, "probability": round(float(share), DIGITS), "start": each.start, "end": each.end}
            for each, share in zip(ranked, odds, strict=False)
        ]
        first = told[0]
        if self.threshold is not None and none - ranked[0].score > self.threshold:
            first = self.no_answer(1) | {"probability": round(float(odds[-1]), DIGITS)}
        return first | ({"top": told[:top]} if top > 1 else {})

    def no_answer(self, top: int) -> dict[str, Any]:
        """Return that there is no answer."""
        return {"answer": None, "probability": None, "start": None, "end": None, **({"top": []} if top > 1 else {})}

    @staticmethod
    def label_of(answer: Mapping[str, Any]) -> Any:
        """Return the span that an answer tells, as a record has it."""
        return [] if answer["answer"] is None else [{"text": answer["answer"], "answer_start": answer["start"]}]

    @staticmethod
    def answer_text(answer: Mapping[str, Any]) -> str:
        """Return one answer in a column for people."""
        return f"{'-' if answer['answer'] is None else shown(answer['answer']):<30}"

    @staticmethod
    def weakest(document: Mapping[str, Any]) -> str:
        """Return nothing: there are no labels to tell apart."""
        return ""


@dataclass(frozen=True)
class AnswerTargets(TokenTargets):
    """For both outputs, 1 at the token with which an answer begins, and ends; 0 where one might, -1 elsewhere."""

    nothing = np.full(2, -1, np.float32)
    windows = True

    def of(self, example: Example, places: Places) -> tuple[np.ndarray, np.ndarray]:
        """Return targets float32 [tokens, 2], and begin and end of each token in the pair, int32 [tokens, 2].

        Without a label, 1 is nowhere.
        """
        sides = np.array([-1 if side is None else side for side in places.sides], np.int64)
        offsets = np.array(places.offsets, np.int32).reshape(-1, 2)
        may = sides == 1
        targets = np.where(may[:, None], 0, self.nothing).astype(np.float32)
        if not len(targets):
            return targets, offsets
        targets[0] = 0
        if example.label is not None:
            first, last = _span_of(json.loads(example.label), str(example.text_pair), offsets, may)
            targets[first, 0] = targets[last, 1] = 1
        return targets, np.where(may[:, None], offsets, 0).astype(np.int32)


def _span_of(answers: Sequence[Any], pair: str, offsets: np.ndarray, may: np.ndarray) -> tuple[int, int]:
    """Return first and last token of the first answer where the window holds it whole, else 0 twice."""
    if not answers:
        return 0, 0
    start, text = answers[0]
    start = pair.find(text) if start < 0 else start
    end = start + len(text)
    tokens = np.flatnonzero(may & (offsets[:, 1] > start) & (offsets[:, 0] < end))
    whole = np.flatnonzero(may)
    if not len(tokens) or offsets[whole[0], 0] > start or offsets[whole[-1], 1] < end:
        return 0, 0
    return int(tokens[0]), int(tokens[-1])
