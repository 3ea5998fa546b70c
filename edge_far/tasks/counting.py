"""Precision and recall in one figure, of counts: of all, of each example, of each label.

A count is of what is true (support), what is said (predicted), and what is both (correct).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

__all__ = ["by_label", "f1", "f1_of_each", "macro_f1"]


def f1(support: float, predicted: float, correct: float) -> float:
    """Return 2 x correct / (support + predicted), 0 where there is neither."""
    return 2 * correct / (support + predicted) if support + predicted else 0.0


def f1_of_each(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return the F1 of each example, float64 [N], 1 where nothing is true and nothing said."""
    total = support + predicted
    return np.where(total > 0, 2 * correct / np.maximum(total, 1), 1.0)


def macro_f1(support: np.ndarray, predicted: np.ndarray, correct: np.ndarray) -> float:
    """Return the mean F1 of the labels that are true or said somewhere, 0 where there is none."""
    total = support + predicted
    occurs = total > 0
    return float((2 * correct[occurs] / total[occurs]).mean()) if occurs.any() else 0.0


def by_label(
    labels: Iterable[str], support: np.ndarray, predicted: np.ndarray, correct: np.ndarray
) -> dict[str, dict[str, int]]:
    """Return the counts of each label, as the document of an evaluation has them."""
    rows = zip(support.tolist(), predicted.tolist(), correct.tolist(), strict=True)
    names = ("support", "predicted", "correct")
    return {label: dict(zip(names, row, strict=True)) for label, row in zip(labels, rows, strict=True)}
