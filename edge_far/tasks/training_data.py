"""The task of training data: the one that was named, or the one that its labels mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_far.errors import ConfigError, DataError
from edge_far.tasks.interface import Task
from edge_far.tasks.registry import TASKS
from edge_far.texts.data import OUR_NAMES, Example, iterate_examples, read_examples
from edge_far.texts.labels import BIO, NUMBER, label_form
from edge_far.texts.reading.columns import Columns
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["TrainingData", "read_training_data"]


@dataclass(frozen=True)
class TrainingData:
    """All examples of a file, what is to be learned of them, and why that was taken where nobody named it."""

    examples: list[Example]
    task: Task
    why: str | None


def read_training_data(
    path: Path, named: str | None = None, reserved: Sequence[str] = (), columns: Columns = OUR_NAMES
) -> TrainingData:
    """Read a file and say what its task is; with outputs for `reserved` labels too.

    `named` is a task's name; None lets the labels say it: objects with an answer mean answer, lists of BIO tags tag,
    other lists multilabel, numbers with a fraction regress, all others classify. `columns` says how the file calls our
    fields.
    Raises what reading does, DataError (65) with the line for a label of another kind, and where there is nothing to
    learn; ConfigError (78) for labels to reserve that cannot be.
    """
    name, why = (named, None) if named is not None else _meant(path, columns)
    if name not in TASKS:
        raise ConfigError(f"'{name}' is not a task", where="--task", hint=f"one of {', '.join(TASKS)}")
    examples = read_examples(path, labels=label_form(TASKS[name].form_name), columns=columns)
    try:
        task = TASKS[name].of_labels((example.label or "" for example in examples), reserved)
    except (ConfigError, DataError) as error:
        raise type(error)(error.message, where=error.where or str(path), hint=error.hint) from error
    return TrainingData(examples, task, why)


def _meant(path: Path, columns: Columns) -> tuple[str, str | None]:
    """Return the task that the labels of a file mean, and why where it is not one label a text."""
    kinds = _Kinds()
    for _ in iterate_examples(path, labels=kinds, columns=columns):
        pass
    if kinds.answers:
        return "answer", "labels are answers"
    if kinds.tags and not kinds.no_tags:
        return "tag", "labels are lists of BIO tags"
    if kinds.lists or (kinds.written_lists and not kinds.others):
        return "multilabel", "labels are lists"
    if kinds.fractions or (kinds.written_fractions and not kinds.names):
        return "regress", "labels are numbers with a fraction"
    return "classify", None


class _Kinds:
    """Stands where a form of labels would (texts/labels.py) and notes what kinds of them there are."""

    def __init__(self) -> None:
        self.tags = self.no_tags = self.answers = False
        self.lists = self.fractions = self.written_fractions = self.names = self.written_lists = self.others = False

    def read(self, value: object) -> str | None:
        """Note the kind of a label; what is wrong with it is told when it is read as the task's."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        is_written_list = isinstance(value, str) and value.strip().startswith("[")
        self.written_lists |= is_written_list
        self.others |= not is_written_list
        if isinstance(value, dict):
            self.answers |= "answer_start" in value
        if isinstance(value, list):
            self.lists = True
            self.answers |= any(isinstance(item, dict) for item in value)
            self.tags |= bool(value)
            self.no_tags |= not all(isinstance(item, str) and BIO.fullmatch(item) for item in value)
        elif isinstance(value, float):
            self.fractions |= not value.is_integer()
        elif isinstance(value, str):
            is_number = NUMBER.fullmatch(value.strip()) is not None
            self.names |= not is_number
            self.written_fractions |= is_number and not float(value).is_integer()
        return ""

    def unknown(self, label: str) -> RecordProblem | None:
        """Return None."""
        return None

    def misfit(self, label: str, text: str, pair: str | None) -> RecordProblem | None:
        """Return None."""
        return None

    def text(self, value: object) -> object:
        """Return the text of a list of words, which only tags have."""
        return " ".join(map(str, value)) if isinstance(value, list) and value else value

    def value(self, label: str) -> str:
        """Return the label."""
        return label
