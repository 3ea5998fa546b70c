"""The figures by which a model is measured: how each is called and shown, and between which bounds it lies.

Documents hold them by these names; whoever shows a document asks here and need not know the task. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["FIGURES", "Figure", "figures_of", "headline_of", "score_name", "short_text"]


@dataclass(frozen=True)
class Figure:
    """One figure: its title, the head of a narrow column, its format, its bounds; `short` where one line has room."""

    title: str
    column: str
    format: str
    low: float
    high: float
    short: bool = False

    def rounded(self, value: float, digits: int) -> float:
        """Return a value for a document: so many decimals of a share, so many digits of a figure with a unit."""
        return round(value, digits) if self.high <= 1 else float(f"{value:.{digits}g}")

    def shown(self, value: float) -> str:
        """Return a value for people."""
        return format(value, self.format)


# In the order in which they are shown; the first that a document holds is its headline.
FIGURES = {
    "accuracy": Figure("accuracy", "accuracy", ".2%", 0, 1, short=True),
    "micro_f1": Figure("micro-F1", "micro-F1", ".3f", 0, 1, short=True),
    "macro_f1": Figure("macro-F1", "macro-F1", ".3f", 0, 1, short=True),
    "matthews": Figure("Matthews", "MCC", ".3f", -1, 1),
    "pearson": Figure("Pearson", "Pearson", ".3f", -1, 1, short=True),
    "spearman": Figure("Spearman", "Spearman", ".3f", -1, 1, short=True),
    "rmse": Figure("RMSE", "RMSE", ".4g", 0, 1e30, short=True),
    "span_f1": Figure("span F1", "span F1", ".3f", 0, 1, short=True),
    "answer_f1": Figure("answer F1", "F1", ".3f", 0, 1, short=True),
    "exact_match": Figure("exact match", "exact", ".2%", 0, 1, short=True),
    "overlap_f1": Figure("F1 of tokens", "tokens", ".3f", 0, 1),
    "precision": Figure("precision", "precision", ".3f", 0, 1),
    "recall": Figure("recall", "recall", ".3f", 0, 1),
    "word_accuracy": Figure("accuracy of words", "words", ".2%", 0, 1),
    "example_f1": Figure("F1 of an example", "F1", ".3f", 0, 1),
    "explained": Figure("explained variance", "explained", ".3f", -1e30, 1),
}


def figures_of(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the figures in a document, in the order in which they are shown."""
    return {name: document[name] for name in FIGURES if document.get(name) is not None}


def headline_of(document: Mapping[str, Any]) -> str | None:
    """Return the name of the figure that stands for a document, None where it holds none."""
    return next(iter(figures_of(document)), None)


def short_text(document: Mapping[str, Any]) -> str:
    """Return the figures that one line has room for: accuracy 97.10%, macro-F1 0.970."""
    found = figures_of(document)
    return ", ".join(
        f"{FIGURES[name].title} {FIGURES[name].shown(value)}" for name, value in found.items() if FIGURES[name].short
    )


def score_name(comparison: Mapping[str, Any]) -> str:
    """Return the figure by which the gate compared two models; a comparison of before there were tasks names none."""
    return str(comparison.get("score", "accuracy"))
