"""What a task answers, and what comes of measuring a model by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edge_far.bundles.manifest import TaskInfo
from edge_far.quoting import shown
from edge_far.tasks.figures import FIGURES, short_text
from edge_far.texts.labels import LabelForm

__all__ = ["Evaluation", "Metrics", "Task", "weakest_labels"]

DIGITS = 6  # of a figure in a document


@dataclass(frozen=True, slots=True)
class Metrics:
    """The result of an evaluation; the loss is that of training, mean over the examples.

    `score` is the figure by which the best epoch is chosen, higher is better; `figures` are named as in figures.py,
    `details` holds what only the document of `edge-far eval` tells, `settings` those by which answers were made of
    logits.
    """

    examples: int
    loss: float
    score: float
    figures: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the headline figures."""
        figures = {name: FIGURES[name].rounded(value, DIGITS) for name, value in self.figures.items()}
        return {"examples": self.examples, "loss": round(self.loss, DIGITS), **figures, **self.settings}

    def text(self) -> str:
        """Return the headline figures for people."""
        return f"{short_text(self.figures)}, loss {self.loss:.4f} on {self.examples} examples"


class Evaluation(Protocol):
    """Collects outputs and targets batch by batch."""

    def add(self, logits: np.ndarray, targets: np.ndarray) -> None:
        """Add a batch: logits float [B, outputs] and its targets; rows without a target are left out."""

    def result(self, *, fit: bool = False) -> Metrics:
        """Return the metrics of all that was added; ValueError when that is nothing.

        With `fit`, settings by which answers are made of logits are those that are best on it.
        """


class Task(Protocol):
    """One kind of learning, with all that the bundle says of it.

    `targets` are arrays with a row an example; `said` is what a model decides from its logits, of the same kind.
    """

    labels: tuple[str, ...]
    info: TaskInfo
    problem_type: str  # as transformers calls it
    score_title: str  # of `score`, in a sentence
    credit_name: str  # of the mean of `credits`, in figures.py
    right_or_wrong: bool  # every credit is 1 or 0

    @property
    def outputs(self) -> int:
        """Return the width of the logits."""

    @property
    def threshold(self) -> float | None:
        """Return the probability from which a label is said; None where an answer needs none."""

    @property
    def form(self) -> LabelForm:
        """Return how a label is read."""

    # --- learning ---------------------------------------------------------------------------------------------------

    def targets(self, labels: Sequence[str | None]) -> np.ndarray:
        """Return the targets of canonical labels; raises DataError for one that the model does not know."""

    def chance(self, targets: np.ndarray) -> float:
        """Return the most that a guess loses on an example: training has diverged where its loss is many times that."""

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return a number for each example, int64 [N]: parts of the data keep their proportions."""

    def fitted(self, measured: Mapping[str, Any]) -> Task:
        """Return the task with the settings that the document of an evaluation tells."""

    # --- measuring --------------------------------------------------------------------------------------------------

    def evaluation(self) -> Evaluation:
        """Return a new, empty evaluation."""

    def said(self, logits: np.ndarray) -> np.ndarray:
        """Return what logits [N, outputs] decide."""

    def no_answers(self, count: int) -> np.ndarray:
        """Return what a model says that says nothing."""

    def score(self, targets: np.ndarray, said: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Return how good answers are, 1 at best, each example counted `weights` times: what rungs are compared by."""

    def score_figures(self, targets: np.ndarray, said: np.ndarray) -> dict[str, float]:
        """Return that score by its name, and beside it what the table of a choice tells of a rung."""

    def credits(self, targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return how right each answer is, float64 [N], at most 1: the gate compares two models by these in pairs."""

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples have a target, bool [N]."""

    # --- telling ----------------------------------------------------------------------------------------------------

    def answers(self, logits: np.ndarray, top: int) -> list[dict[str, Any]]:
        """Return what `predict` tells of each text; `top` alternatives where the task ranks them."""

    def no_answer(self, top: int) -> dict[str, Any]:
        """Return what it tells of a blank text."""

    def label_of(self, answer: Mapping[str, Any]) -> Any:
        """Return the label that such an answer tells, in the form of a record's; None of a blank text."""


def weakest_labels(classes: Mapping[str, Mapping[str, int]]) -> str:
    """Return the labels of which the smallest share was found, or nothing: light_dim 3/7, ..."""
    seen = [(c["correct"] / c["support"], label, c) for label, c in classes.items() if c["support"]]
    found = [f"{shown(label)} {c['correct']}/{c['support']}" for share, label, c in sorted(seen)[:3] if share < 1]
    return ", ".join(found)
