"""A tag for each word (BIO): softmax of each word's first piece; the F1 of spans; credits are F1s of examples.

Words are what blanks separate. A word's first piece has its target, and its logits are the word's; other pieces and
special tokens have none. An example's loss is the mean over its words, so that each example counts the same.

Spans are those of CoNLL-2000's measure, read as conlleval and seqeval read them: a span begins with B-, or with an I-
that follows no tag of its own kind, and ends where the next word does not go on with I- of the same kind. It is right
where kind, first word and last word are. Precision, recall and F1 are of all spans together (micro). Words that were
cut off count nowhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_far.bundles.manifest import Scale, TaskInfo
from edge_far.errors import ConfigError, DataError
from edge_far.quoting import quoted, shown
from edge_far.tasks.counting import by_label, f1, f1_of_each
from edge_far.tasks.interface import Metrics, weakest_labels
from edge_far.texts.data import Example, label_names
from edge_far.texts.encode import Encoded
from edge_far.texts.labels import OUTSIDE, Tags
from edge_far.texts.targets import Places, TokenTargets

__all__ = ["Spans", "Tag", "TagEvaluation", "TagTargets"]

NAME = "tag"
NO_WORD, NO_TAG = -1, -2  # in the place of a tag's number: no word begins here, or nobody said its tag
DIGITS = 6
WORD = re.compile(r"\S+")


class Tag:
    """The task of `labels`, the tags, of which each word has one; targets are int64 [N, tokens], see TagTargets."""

    form_name = "tags"
    problem_type: str | None = None
    head_class = "TokenClassification"
    score_title = "the F1 of spans"
    credit_name = "example_f1"
    right_or_wrong = False
    threshold = None

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self.info = TaskInfo(NAME, form=self.form_name, loss="token_softmax", outputs=len(self.labels))
        self.spans = Spans(self.labels)

    @classmethod
    def made(cls, labels: Sequence[str], scale: Scale | None, threshold: float | None) -> Tag:
        """Return the task that a bundle or a release describes."""
        return cls(labels)

    @classmethod
    def of_labels(cls, labels: Iterable[str], reserved: Sequence[str]) -> Tag:
        """Return the task of training data: O, and B- and I- of every kind that occurs; DataError for none."""
        if reserved:
            raise ConfigError("tags have no labels to reserve", where="--reserve-labels", hint="leave it out")
        kinds = label_names(tag[2:] for label in labels for tag in label.split() if tag != OUTSIDE)
        if not kinds:
            raise DataError("every tag of the training data is O", hint="there is nothing to learn")
        return cls([OUTSIDE, *(f"{first}-{kind}" for kind in kinds for first in "BI")])

    def fitted(self, measured: Mapping[str, Any]) -> Tag:
        """Return the task itself: the likeliest tag is said, whatever was measured."""
        return self

    @property
    def outputs(self) -> int:
        """Return the number of tags."""
        return len(self.labels)

    @property
    def form(self) -> Tags:
        """Return how a label is read: one tag a word."""
        return Tags(self.labels)

    @property
    def targets(self) -> TagTargets:
        """Return what gives tokens their targets."""
        return TagTargets(self.labels)

    @property
    def reading(self) -> TagTargets:
        """Return the same: it finds the words of texts without labels too."""
        return TagTargets(self.labels)

    def chance(self, targets: np.ndarray) -> float:
        """Return the loss of a guess in nats, the same for every word."""
        return math.log(self.outputs)

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return the rarest kind of span of each example, 0 for those without any."""
        kinds = np.where(targets >= 0, self.spans.kinds[np.maximum(targets, 0)], 0)
        has = np.stack([(kinds == kind).any(axis=1) for kind in range(1, self.spans.count)], axis=1)
        order = np.argsort(has.sum(axis=0), kind="stable")
        return np.where(has.any(axis=1), order[has[:, order].argmax(axis=1)] + 1, 0)

    # --- measuring --------------------------------------------------------------------------------------------------

    def evaluation(self, encoded: Encoded | None = None) -> TagEvaluation:
        """Return a new, empty evaluation."""
        return TagEvaluation(self.spans)

    def said(self, logits: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Return the number of each token's likeliest tag, int64 [N, tokens]; those of first pieces count."""
        likeliest: np.ndarray = logits.argmax(axis=-1)
        return likeliest

    def no_answers(self, targets: np.ndarray) -> np.ndarray:
        """Return the tag O for every token."""
        return np.zeros(targets.shape, np.int64)

    def scorer(self, targets: np.ndarray, said: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return what gives the F1 of spans, each example counted so many times."""
        counts = [part.astype(np.float64) for part in self._counts(targets, said)]
        return lambda weights: f1(*(float(weights @ part) for part in counts))

    def score(self, targets: np.ndarray, said: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Return the F1 of spans."""
        return self.scorer(targets, said)(np.ones(len(targets)) if weights is None else weights)

    def score_figures(self, targets: np.ndarray, said: np.ndarray) -> dict[str, float]:
        """Return the F1 of spans, and the share of words with the right tag."""
        words = targets >= 0
        right = float((targets == said)[words].mean()) if words.any() else 0.0
        return {"span_f1": self.score(targets, said), "word_accuracy": right}

    def credits(self, targets: np.ndarray, logits: np.ndarray, *_: Any) -> np.ndarray:
        """Return each example's own F1, 1 where there is no span and none is said."""
        return f1_of_each(*self._counts(targets, self.said(logits)))

    def says_one_thing(self, targets: np.ndarray, logits: np.ndarray) -> bool:
        """Say whether no span is said where there are some."""
        support, predicted, _ = self._counts(targets, self.said(logits))
        return not predicted.any() and bool(support.any())

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples have a tag."""
        return np.asarray((targets >= 0).any(axis=1))

    def _counts(self, targets: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the spans that there are, that are said, and that are both, of each example, int64 [N]."""
        rows, truth, answers = _words(targets, said)
        has, says, both = self.spans.compare(rows, truth, answers)
        support, predicted, correct = (np.bincount(found[0], minlength=len(targets)) for found in (has, says, both))
        return support, predicted, correct

    # --- telling ----------------------------------------------------------------------------------------------------

    def answers(
        self, logits: np.ndarray, top: int, encoded: Encoded | None = None, texts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return words, tags and spans of each text; `encoded` says which word a token begins.

        A span has its kind, its text, begin and end in characters, and the least probability of its words' tags.
        """
        assert encoded is not None and encoded.places is not None
        told = []
        for number, text in enumerate(texts):
            begin, end = encoded.starts[number], encoded.starts[number + 1]
            first = np.flatnonzero(encoded.labels[begin:end] != NO_WORD)
            wide = logits[number, first].astype(np.float64)
            odds = np.exp(wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True))
            told.append(self._answer(text, encoded.places[begin:end][first], odds))
        return told

    def _answer(self, text: str, words: np.ndarray, odds: np.ndarray) -> dict[str, Any]:
        places = [(match.start(), match.end()) for match in WORD.finditer(text)]
        tags, sure = np.zeros(len(places), np.int64), np.ones(len(places))
        tags[words], sure[words] = odds.argmax(axis=-1), odds.max(axis=-1, initial=0.0)
        spans = [
            {
                "label": self.spans.names[kind],
                "text": text[places[begin][0] : places[end - 1][1]],
                "start": places[begin][0],
                "end": places[end - 1][1],
                "probability": round(float(sure[begin:end].min()), DIGITS),
            }
            for begin, end, kind in zip(*self.spans.of(np.zeros(len(tags), np.int64), tags), strict=True)
        ]
        return {"spans": spans, "words": text.split(), "tags": [self.labels[tag] for tag in tags]}

    def no_answer(self, top: int) -> dict[str, Any]:
        """Return an answer without a word."""
        return {"spans": [], "words": [], "tags": []}

    @staticmethod
    def label_of(answer: Mapping[str, Any]) -> Any:
        """Return the tags that an answer tells."""
        return answer["tags"] or None

    @staticmethod
    def answer_text(answer: Mapping[str, Any]) -> str:
        """Return one answer in a column for people."""
        told = ", ".join(f"{shown(span['label'])}={shown(span['text'])}" for span in answer["spans"])
        return f"{told or '-':<40}"

    @staticmethod
    def weakest(document: Mapping[str, Any]) -> str:
        """Return the kinds of span that the document of an evaluation found hardest, or nothing."""
        return weakest_labels(document["classes"])


@dataclass(frozen=True)
class TagTargets(TokenTargets):
    """Gives the first piece of each word the number of its tag; NO_TAG without a label, NO_WORD to other tokens."""

    labels: tuple[str, ...]
    nothing = np.array(NO_WORD, np.int64)
    windows = False

    def of(self, example: Example, places: Places) -> tuple[np.ndarray, np.ndarray]:
        """Return targets int64 [tokens], and the number of the word that each of them begins, int32 [tokens], or -1.

        A token belongs to the word of its last character that is no blank. Raises DataError for an unknown tag.
        """
        numbers = self._numbers(example.label)
        word_of = [number for number, match in enumerate(WORD.finditer(example.text)) for _ in match.group()]
        letters = [place for place, letter in enumerate(example.text) if not letter.isspace()]
        found = dict(zip(letters, word_of, strict=True))
        targets, words = np.full(len(places.sides), NO_WORD, np.int64), np.full(len(places.sides), -1, np.int32)
        last = -1
        for token, (side, (begin, end)) in enumerate(zip(places.sides, places.offsets, strict=True)):
            if side != 0:
                continue
            word = next((found[place] for place in range(end - 1, begin - 1, -1) if place in found), last)
            if word > last:
                targets[token] = NO_TAG if numbers is None else numbers[word]
                words[token] = last = word
        return targets, words

    def _numbers(self, label: str | None) -> list[int] | None:
        if label is None:
            return None
        places = {name: place for place, name in enumerate(self.labels)}
        try:
            return [places[tag] for tag in label.split()]
        except KeyError as error:
            hint = f"the bundle has {len(places)} tags"
            raise DataError(f"unknown tag {quoted(str(error.args[0]))}", hint=hint) from error


class Spans:
    """Finds the spans in tags; kinds are numbers from 1, in the order of the tags, 0 is none."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.names = ["", *dict.fromkeys(label[2:] for label in labels if label != OUTSIDE)]
        self.count = len(self.names)
        numbers = {name: number for number, name in enumerate(self.names)}
        self.kinds = np.array([0 if label == OUTSIDE else numbers[label[2:]] for label in labels])
        self.begins = np.array([label.startswith("B-") for label in labels])

    def of(self, rows: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return begin, end (behind the last word) and kind of each span of tags int64 [words], row after row."""
        kinds = self.kinds[tags]
        goes_on = np.zeros(len(tags), bool)
        goes_on[1:] = (kinds[1:] == kinds[:-1]) & (rows[1:] == rows[:-1]) & ~self.begins[tags[1:]] & (kinds[1:] > 0)
        begins = np.flatnonzero((kinds > 0) & ~goes_on)
        stops = np.append(np.flatnonzero(~goes_on), len(tags))
        return begins, stops[np.searchsorted(stops, begins, side="right")], kinds[begins]

    def compare(
        self, rows: np.ndarray, truth: np.ndarray, said: np.ndarray
    ) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Return rows and kinds of the spans that there are, that are said, and that are both."""
        has, says = self.of(rows, truth), self.of(rows, said)
        ends = np.full(len(truth) + 1, -1)
        kinds = ends.copy()
        ends[says[0]], kinds[says[0]] = says[1], says[2]
        right = (ends[has[0]] == has[1]) & (kinds[has[0]] == has[2])
        return (rows[has[0]], has[2]), (rows[says[0]], says[2]), (rows[has[0]][right], has[2][right])


class TagEvaluation:
    """Collects answers and targets batch by batch, in memory that depends on the number of kinds alone."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._counts = np.zeros((3, spans.count), np.int64)  # support, predicted, correct
        self._examples = self._words = self._right = 0
        self._loss_sum = 0.0

    def add(self, logits: np.ndarray, targets: np.ndarray, indices: np.ndarray | None = None) -> None:
        """Add a batch: logits float [B, S, tags], targets int64 [B, S]; examples without a tag are left out."""
        known = (targets >= 0).any(axis=1)
        logits, targets = logits[known], targets[known]
        if not len(targets):
            return
        rows, truth, said = _words(targets, logits.argmax(axis=-1))
        for kinds, count in zip(
            (kinds for _, kinds in self._spans.compare(rows, truth, said)), self._counts, strict=True
        ):
            count += np.bincount(kinds, minlength=self._spans.count)
        wide = logits[targets >= 0].astype(np.float64)
        losses = np.logaddexp.reduce(wide, axis=-1) - wide[np.arange(len(truth)), truth]
        self._loss_sum += math.fsum(np.bincount(rows, losses) / np.bincount(rows))
        self._examples, self._words = self._examples + len(targets), self._words + len(truth)
        self._right += int((truth == said).sum())

    def result(self, *, fit: bool = False) -> Metrics:
        """Return the metrics of all that was added; ValueError when that is nothing."""
        if not self._examples:
            raise ValueError("no labelled example to evaluate on")
        support, predicted, correct = (int(count.sum()) for count in self._counts)
        figures = {
            "span_f1": f1(support, predicted, correct),
            "precision": correct / predicted if predicted else 0.0,
            "recall": correct / support if support else 0.0,
            "word_accuracy": self._right / self._words,
        }
        classes = by_label(self._spans.names[1:], *self._counts[:, 1:])
        loss = self._loss_sum / self._examples
        return Metrics(self._examples, loss, figures["span_f1"], figures, {"classes": classes})


def _words(targets: np.ndarray, said: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, tag and answer of every word with a tag, in order."""
    known = targets >= 0
    return np.nonzero(known)[0], targets[known], said[known]
