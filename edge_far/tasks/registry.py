"""The tasks by name; a bundle's, a release's, and that of training data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from edge_far.bundles.manifest import Scale
from edge_far.tasks.classify import Classify
from edge_far.tasks.interface import Task
from edge_far.tasks.multilabel import Multilabel
from edge_far.tasks.regress import Regress
from edge_far.tasks.tokens.answer import Answer
from edge_far.tasks.tokens.tag import Tag

__all__ = ["TASKS", "TaskKind", "task_of"]


class TaskKind(Protocol):
    """How a task is made; of a document that tells its name, what people read. `form_name` is its labels' form."""

    form_name: str

    def made(self, labels: Sequence[str], scale: Scale | None, threshold: float | None) -> Task:
        """Return the task that a bundle or a release describes; ValueError where a part is missing."""

    def of_labels(self, labels: Iterable[str], reserved: Sequence[str]) -> Task:
        """Return the task of training data by its canonical labels; DataError where there is nothing to learn."""

    def answer_text(self, answer: Mapping[str, Any]) -> str:
        """Return one answer of `predict` in a column for people."""

    def weakest(self, document: Mapping[str, Any]) -> str:
        """Return what the document of an evaluation found hardest, or nothing."""


TASKS: dict[str, TaskKind] = {
    "classify": Classify,
    "multilabel": Multilabel,
    "regress": Regress,
    "tag": Tag,
    "answer": Answer,
}


def task_of(name: str, labels: Sequence[str], scale: Scale | None = None, threshold: float | None = None) -> Task:
    """Return the task that a manifest, or a release of itself, says; ValueError where a part of it is missing."""
    return TASKS[name].made(labels, scale, threshold)
