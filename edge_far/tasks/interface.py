"""What a task answers, and what comes of measuring a model by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edge_far.bundles.manifest import TaskInfo
from edge_far.quoting import shown
from edge_far.tasks.figures import FIGURES, short_text
from edge_far.texts.encode import Encoded
from edge_far.texts.labels import LabelForm
from edge_far.texts.targets import Targets, TokenTargets

__all__ = ["Evaluation", "Metrics", "Task", "all_alike", "weakest_labels"]

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

    def add(self, logits: np.ndarray, targets: np.ndarray, indices: np.ndarray | None = None) -> None:
        """Add a batch: logits float [B, outputs] or [B, S, outputs], and its targets; rows without one are left out.

        `indices` say which rows of the encoded examples they are.
        """

    def result(self, *, fit: bool = False) -> Metrics:
        """Return the metrics of all that was added; ValueError when that is nothing.

        With `fit`, settings by which answers are made of logits are those that are best on it.
        """


class Task(Protocol):
    """One kind of learning, with all that the bundle says of it.

    `targets` are arrays with a row an example, where every token has one padded (texts/encode.py); logits are float
    [N, outputs], or [N, tokens, outputs] then; `said` is what a model decides from them.
    """

    labels: tuple[str, ...]
    info: TaskInfo
    problem_type: str | None  # as transformers calls it
    head_class: str  # the end of the name of transformers' classes with such a head
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

    @property
    def targets(self) -> Targets | TokenTargets:
        """Return what makes targets of canonical labels; it raises DataError for one that the model does not know."""

    @property
    def reading(self) -> TokenTargets | None:
        """Return what a text without a label needs to be answered, None where that is nothing."""

    def chance(self, targets: np.ndarray) -> float:
        """Return the most that a guess loses on an example: training has diverged where its loss is many times that."""

    def strata(self, targets: np.ndarray) -> np.ndarray:
        """Return a number for each example, int64 [N]: parts of the data keep their proportions."""

    def fitted(self, measured: Mapping[str, Any]) -> Task:
        """Return the task with the settings that the document of an evaluation tells."""

    # --- measuring --------------------------------------------------------------------------------------------------

    def evaluation(self, encoded: Encoded | None = None) -> Evaluation:
        """Return a new, empty evaluation; `encoded` are the examples, for a task that measures by their texts."""

    def said(self, logits: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Return what logits decide; of a task of tokens, targets say which of them count."""

    def no_answers(self, targets: np.ndarray) -> np.ndarray:
        """Return what a model says that says nothing of the examples with these targets."""

    def scorer(self, targets: np.ndarray, said: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return the score of answers as a function of how often each example counts, float64 [N]."""

    def score(self, targets: np.ndarray, said: np.ndarray, weights: np.ndarray | None = None) -> float:
        """Return how good answers are, 1 at best, each example counted `weights` times: what rungs are compared by."""

    def score_figures(self, targets: np.ndarray, said: np.ndarray) -> dict[str, float]:
        """Return that score by its name, and beside it what the table of a choice tells of a rung."""

    def credits(
        self, targets: np.ndarray, logits: np.ndarray, encoded: Encoded | None = None, indices: np.ndarray | None = None
    ) -> np.ndarray:
        """Return how right each answer is, float64, at most 1: the gate compares two models by these in pairs.

        There is one for each row; of a task that reads an example in several rows one for each example, where it is
        given the examples and which of their rows these are.
        """

    def says_one_thing(self, targets: np.ndarray, logits: np.ndarray) -> bool:
        """Say whether every example is given the same answer though not all have the same target."""

    def known(self, targets: np.ndarray) -> np.ndarray:
        """Return which examples have a target, bool [N]."""

    # --- telling ----------------------------------------------------------------------------------------------------

    def answers(
        self, logits: np.ndarray, top: int, encoded: Encoded | None = None, texts: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return what `predict` tells of each text; `top` alternatives where the task ranks them.

        A task whose tokens have targets asks for the texts and what `reading` made of them.
        """

    def no_answer(self, top: int) -> dict[str, Any]:
        """Return what it tells of a blank text."""

    def label_of(self, answer: Mapping[str, Any]) -> Any:
        """Return the label that such an answer tells, in the form of a record's; None of a blank text."""


def all_alike(answers: np.ndarray) -> bool:
    """Say whether all rows are the same."""
    return bool((answers == answers[:1]).all())


def weakest_labels(classes: Mapping[str, Mapping[str, int]]) -> str:
    """Return the labels of which the smallest share was found, or nothing: light_dim 3/7, ..."""
    seen = [(c["correct"] / c["support"], label, c) for label, c in classes.items() if c["support"]]
    found = [f"{shown(label)} {c['correct']}/{c['support']}" for share, label, c in sorted(seen)[:3] if share < 1]
    return ", ".join(found)
