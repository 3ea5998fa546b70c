"""What examples are to be answered with, as arrays: a row an example, or a row a token where each has a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from tokenizers import Encoding

from edge_far.errors import DataError
from edge_far.quoting import quoted
from edge_far.texts.data import Example

__all__ = ["Collector", "Places", "Targets", "TokenTargets", "class_numbers", "collector"]

# What a task makes of the labels of some examples: an array with a row for each.
Targets = Callable[[Sequence[str | None]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the tokens of a row lie, as lists of one length.

    `sides` is 0 for the text, 1 for its pair, None for a special token; `offsets` are begin and end in characters.
    """

    sides: Sequence[int | None]
    offsets: Sequence[tuple[int, int]]


class TokenTargets(Protocol):
    """What a task makes of the label of an example where every token has a target.

    `nothing` is the target of padding, a scalar or [outputs]. With `windows` a long pair becomes several rows, and
    the examples are kept.
    """

    nothing: np.ndarray
    windows: bool

    def of(self, example: Example, places: Places) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens' targets [tokens, ...] as `nothing` is, and int32 [tokens, ...]: what finds one again."""


class Collector(Protocol):
    """Collects the targets of rows as they are encoded."""

    nothing: np.ndarray | None
    asks_places: bool
    windows: bool

    def add(self, examples: Sequence[Example], encodings: Sequence[Encoding]) -> None:
        """Add those of some rows, each with its example; of an encoding that was cut, what is left."""

    def labels(self) -> np.ndarray:
        """Return the targets of all."""

    def places(self) -> np.ndarray | None:
        """Return what finds tokens again."""


def collector(labels: Sequence[str] | Targets | TokenTargets | None) -> Collector:
    """Return what collects a task's targets; the numbers of names; or -1 for all."""
    if labels is None or isinstance(labels, Sequence):
        return _OfTexts(partial(class_numbers, None if labels is None else tuple(labels)))
    return _OfTexts(labels) if callable(labels) else _OfTokens(labels)


class _OfTexts:
    """The targets of examples, a row each."""

    nothing: np.ndarray | None = None
    asks_places = windows = False

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._found = [targets([])]

    def add(self, examples: Sequence[Example], encodings: Sequence[Encoding]) -> None:
        """See Collector."""
        self._found.append(self._targets([example.label for example in examples]))

    def labels(self) -> np.ndarray:
        """See Collector."""
        return np.concatenate(self._found)

    def places(self) -> np.ndarray | None:
        """Return None."""
        return None


class _OfTokens:
    """The targets of tokens."""

    asks_places = True

    def __init__(self, targets: TokenTargets) -> None:
        self._targets = targets
        self.nothing: np.ndarray | None = targets.nothing
        self.windows = targets.windows
        first, places = targets.of(Example("", ""), Places([], []))
        self._found, self._places = [first], [places]

    def add(self, examples: Sequence[Example], encodings: Sequence[Encoding]) -> None:
        """See Collector."""
        for example, encoding in zip(examples, encodings, strict=True):
            labels, places = self._targets.of(example, Places(encoding.sequence_ids, encoding.offsets))
            self._found.append(labels)
            self._places.append(places)

    def labels(self) -> np.ndarray:
        """See Collector."""
        return np.concatenate(self._found)

    def places(self) -> np.ndarray | None:
        """See Collector."""
        return np.concatenate(self._places)


def class_numbers(names: Sequence[str] | None, labels: Sequence[str | None]) -> np.ndarray:
    """Return the number of each label among `names`, int64 [N], -1 without a label or names; DataError for another."""
    numbers = {name: number for number, name in enumerate(names or ())}
    for label in labels if names is not None else ():
        if label is not None and label not in numbers:
            raise DataError(f"unknown label {quoted(label)}", hint=f"the bundle has {len(numbers)} labels")
    return np.array([numbers.get(label, -1) if label is not None else -1 for label in labels], np.int64)
