"""The task of training data: the one that was named, with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_far.errors import ConfigError
from edge_far.tasks.interface import Task
from edge_far.tasks.registry import TASKS
from edge_far.texts.data import Example, read_examples
from edge_far.texts.labels import label_form

__all__ = ["read_training_data"]


def read_training_data(path: Path, reserved: Sequence[str] = ()) -> tuple[list[Example], Task]:
    """Return all examples of a file and their task, with outputs for `reserved` labels too.

    Raises what reading does, and ConfigError (78) where there is nothing to learn.
    """
    examples = read_examples(path, labels=label_form("name"))
    try:
        task = TASKS["classify"].of_labels((example.label or "" for example in examples), reserved)
    except ConfigError as error:
        raise ConfigError(error.message, where=str(path), hint=error.hint) from error
    return examples, task
