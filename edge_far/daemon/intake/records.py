"""What one line of a spool file says: an example, a prediction, or feedback on a prediction.

The rules for text, text_pair and label are those of all data files (edge_far.texts.data); a spool line may
also hold `id`, `prediction` and `feedback`.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_far.daemon.intake.spool import MAX_ID_CHARACTERS
from edge_far.texts.data import Example, ExampleChecker, Labels
from edge_far.texts.reading.json_object import read_object
from edge_far.texts.reading.lines import decoded
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["Feedback", "LabelledExample", "Prediction", "Record", "RecordError", "RecordReader"]


class RecordError(Exception):
    """Why a line cannot be used, in one sentence."""


@dataclass(frozen=True, slots=True)
class LabelledExample:
    """A text with its label."""

    example: Example


@dataclass(frozen=True, slots=True)
class Prediction:
    """An unlabelled text under the application's id."""

    id: str
    example: Example
    prediction: str | None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A label for an id, or whether its prediction was correct."""

    id: str
    label: str | None
    correct: bool | None


Record = LabelledExample | Prediction | Feedback


class RecordReader:
    """Reads lines; `labels` are as in texts/data.py."""

    def __init__(self, labels: Labels) -> None:
        self._labelled = ExampleChecker(labels, require_labels=True)
        self._unlabelled = ExampleChecker(labels, require_labels=False)

    def read(self, line: bytes) -> Record | None:
        """Return what the line says, or None for an empty one; raises RecordError."""
        try:
            return self._record(line)
        except RecordProblem as wrong:
            raise RecordError(f"{wrong.message} ({wrong.hint})" if wrong.hint else wrong.message) from wrong

    def _record(self, line: bytes) -> Record | None:
        text = decoded(line)
        if not text.strip():
            return None
        record = read_object(text)
        name = _id(record)
        if name is None or ("text" in record and record.get("label") is not None):
            return LabelledExample(self._labelled.example(record))
        if "text" in record:
            prediction = self._label(record, "prediction")
            return Prediction(name, self._unlabelled.example(record), prediction)
        label = self._label(record, "label")
        correct = {None: None, "correct": True, "wrong": False}.get(_string(record, "feedback"), ...)
        if correct is ...:
            raise RecordError("'feedback' is neither 'correct' nor 'wrong'")
        if label is None and correct is None:
            raise RecordError("an id without text, label or feedback")
        return Feedback(name, label, correct)

    def _label(self, record: dict[str, object], field: str) -> str | None:
        """Return a label by the rules for labels, whatever the field's name; None where there is none."""
        if record.get(field) is None:
            return None
        label = self._labelled.labels.read(record[field])
        if label is not None and (wrong := self._labelled.labels.unknown(label)):
            raise wrong
        return label


def _id(record: dict[str, object]) -> str | None:
    value = record.get("id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_CHARACTERS or not value.isprintable():
        raise RecordError(f"'id' is not a printable text of 1 to {MAX_ID_CHARACTERS} characters")
    return value


def _string(record: dict[str, object], field: str) -> str | None:
    value = record.get(field)
    return value if value is None or isinstance(value, str) else ""
