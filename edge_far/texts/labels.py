"""What may stand in the field `label`, by the form that a task asks for; every label becomes one canonical text.

A file, the daemon's store and a comparison know labels as that text. Refuses to know models and numbers of outputs;
standard library only, for the daemon's parent process reads labels too.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from edge_far.quoting import quoted
from edge_far.texts.reading.json_object import checked_text
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["FORMS", "LabelForm", "Names", "label_form"]


class LabelForm(Protocol):
    """How one kind of label is read."""

    def read(self, value: object) -> str | None:
        """Return the canonical text of a field's value, None for a missing one; raises RecordProblem."""

    def unknown(self, label: str) -> RecordProblem | None:
        """Return why a label that was read is none of the model's, or None."""

    def value(self, label: str) -> Any:
        """Return what stands for a canonical text in a JSON record."""


class Names:
    """One name: a string, or a whole number, which is read as its digits; `names` are those known, None allows any."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = names
        self.known = frozenset(names or ())

    def read(self, value: object) -> str | None:
        """Return the name; raises RecordProblem."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        return checked_text(value, "label", "a string or a whole number")

    def unknown(self, label: str) -> RecordProblem | None:
        """Return the problem, with the known name that is nearest."""
        if self.names is None or label in self.known:
            return None
        near = difflib.get_close_matches(label, self.names, n=1)
        question = f"did you mean {quoted(near[0])}? " if near else ""
        count = f"{len(self.names)} label{'s' if len(self.names) != 1 else ''}"
        return RecordProblem(f"unknown label {quoted(label)}", f"{question}the bundle has {count}")

    def value(self, label: str) -> str:
        """Return the name itself."""
        return label


FORMS: dict[str, Callable[[Sequence[str] | None], LabelForm]] = {"name": Names}


def label_form(form: str, names: Sequence[str] | None = None) -> LabelForm:
    """Return a form by the word for it in a bundle's manifest; `names` are the labels that the model knows."""
    return FORMS[form](names)
