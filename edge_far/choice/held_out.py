"""Which examples are trained on and which are held out, the same for all rungs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Fold", "folds", "folds_of", "part_of"]

SHARE = 5  # a fifth is held out
FEWEST, MOST = 500, 3000


@dataclass(frozen=True, eq=False)
class Fold:
    """Indices of the examples to train on and of those held out, int64, in ascending order."""

    train: np.ndarray
    held_out: np.ndarray


def folds(labels: np.ndarray, seed: int) -> list[Fold]:
    """Hold out a fifth of each label, at most 3,000 examples; repeat on other fifths until 500 were held out.

    `labels` is int [N], a task's strata. A label of few examples is held out only where enough are left to train on.
    """
    random = np.random.default_rng(seed)
    part = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        # The fifths go round; where each label begins is drawn, or all single examples would fall into the first.
        part[members] = (np.arange(len(members)) + random.integers(SHARE)) % SHARE
    count = min(SHARE, -(-FEWEST * SHARE // max(len(labels), 1)))
    found = []
    for number in range(count):
        held_out = np.flatnonzero(part == number)
        if not len(held_out):
            continue
        if len(held_out) > MOST:
            held_out = np.sort(random.permutation(held_out)[:MOST])
        found.append(Fold(np.setdiff1d(np.arange(len(labels)), held_out), held_out))
    return found


def folds_of(examples: np.ndarray, labels: np.ndarray, seed: int) -> list[Fold]:
    """Return folds of rows, those of one example together; `examples` is each row's, int64 [N]."""
    names, first = np.unique(examples, return_index=True)
    return [
        Fold(
            np.flatnonzero(np.isin(examples, names[fold.train])),
            np.flatnonzero(np.isin(examples, names[fold.held_out])),
        )
        for fold in folds(labels[first], seed)
    ]


def part_of(train: np.ndarray, labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return about `count` of the examples to train on, of each label in its proportion and at least one."""
    if count >= len(train):
        return train
    random = np.random.default_rng(seed)
    share = count / len(train)
    chosen = []
    for label in np.unique(labels[train]):
        members = train[labels[train] == label]
        chosen.append(random.permutation(members)[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(chosen))
