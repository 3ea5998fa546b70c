"""Which span an answer's logits say, and how good it is by SQuAD's measures."""

from __future__ import annotations

import collections
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["LONGEST", "NO_SPAN", "Candidate", "best_span", "best_threshold", "candidates", "squad_scores"]

LONGEST = 30  # tokens of an answer, as in BERT's own decoding
NO_SPAN = 0  # the first token stands for no answer
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Candidate:
    """A span of a pair in characters, and the sum of its logits."""

    score: float
    text: str
    start: int
    end: int


def best_span(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each row the best span, int64 [N, 2], its sum of logits, and that of no answer, float64 [N].

    Logits and targets are [N, S, 2]; a negative target says that a token cannot be said. Where no token can, the span
    is NO_SPAN and its sum minus infinity.
    """
    begins, ends = _allowed(logits, targets)
    count = logits.shape[1]
    best, spans = np.full(len(logits), -np.inf), np.full((len(logits), 2), NO_SPAN)
    for length in range(min(LONGEST, count)):
        sums = begins[:, : count - length] + ends[:, length:]
        first = sums.argmax(axis=1)
        found = sums[np.arange(len(sums)), first]
        better = found > best
        best[better] = found[better]
        spans[better] = np.stack([first, first + length], axis=1)[better]
    return spans, best, logits[:, 0].astype(np.float64).sum(axis=1)


def candidates(logits: np.ndarray, targets: np.ndarray, places: np.ndarray, pair: str, count: int) -> list[Candidate]:
    """Return the `count` best spans of one row: logits and targets [S, 2], places int [tokens, 2] in the pair."""
    begins, ends = (values[0] for values in _allowed(logits[None], targets[None]))
    sums = np.full((LONGEST, len(begins)), -np.inf)
    for length in range(min(LONGEST, len(begins))):
        sums[length, : len(begins) - length] = begins[: len(begins) - length] + ends[length:]
    order = np.argsort(-sums, axis=None, kind="stable")[:count]
    found = []
    for length, first in zip(*np.unravel_index(order, sums.shape), strict=True):
        if np.isfinite(sums[length, first]):
            start, end = int(places[first, 0]), int(places[first + length, 1])
            found.append(Candidate(float(sums[length, first]), pair[start:end], start, end))
    return found


def _allowed(logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of a beginning and of an end, float64 [N, S], minus infinity where there can be none."""
    wide = np.where(targets >= 0, logits.astype(np.float64), -np.inf)
    wide[:, NO_SPAN] = -np.inf
    return wide[:, :, 0], wide[:, :, 1]


def best_threshold(odds: np.ndarray, said: np.ndarray, silent: np.ndarray) -> float:
    """Return from which odds for no answer on none should be said: the middle of two, for the best mean F1.

    `said` is the F1 of the span, `silent` that of saying none; odds are the differences of their sums of logits.
    """
    order = np.argsort(odds, kind="stable")
    # With the first k of the order said and the others silent.
    totals = np.concatenate([[0.0], np.cumsum((said - silent)[order])])
    totals[1:-1][odds[order][:-1] == odds[order][1:]] = -np.inf  # equal ones are treated alike
    kept = int(totals.argmax())
    finite = np.clip(odds[order], -1e6, 1e6)
    below = finite[kept - 1] if kept else finite[0] - 1.0
    above = finite[kept] if kept < len(finite) else finite[-1] + 1.0
    return float(round((below + above) / 2, 6))


def squad_scores(said: str, golds: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1 of an answer, "" for none, the best over the true ones; none says no answer."""
    kept = [gold for gold in golds if _normal(gold)] or [""]
    return max(float(_normal(said) == _normal(gold)) for gold in kept), max(_f1(said, gold) for gold in kept)


def _normal(text: str) -> str:
    """Return a text without case, punctuation, articles and needless blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _f1(said: str, gold: str) -> float:
    mine, true = _normal(said).split(), _normal(gold).split()
    if not mine or not true:
        return float(mine == true)
    shared = sum((collections.Counter(mine) & collections.Counter(true)).values())
    return 2 * shared / (len(mine) + len(true))
