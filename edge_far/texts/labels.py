"""What may stand in the field `label`, by the form that a task asks for; every label becomes one canonical text.

A file, the daemon's store and a comparison know labels as that text. Refuses to know models and numbers of outputs;
standard library only, for the daemon's parent process reads labels too.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from edge_far.quoting import quoted
from edge_far.texts.reading.json_object import checked_text, json_type
from edge_far.texts.reading.problems import RecordProblem

__all__ = [
    "BIO",
    "FORMS",
    "NUMBER",
    "OUTSIDE",
    "Answers",
    "LabelForm",
    "NameLists",
    "Names",
    "Numbers",
    "Tags",
    "label_form",
]

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
NUMBER_HINT = "write it with digits and a decimal point, for example 3.5"
LIST_HINT = 'write ["light", "kitchen"], or [] where no label applies'
TAGS_HINT = 'write one a word, O or B- or I- and a name: "label": ["O", "B-room", "I-room"]'
ANSWERS_HINT = 'write [{"text": "Paris", "answer_start": 31}], or [] where text_pair holds no answer'
LARGEST = 1e15
OUTSIDE = "O"
BIO = re.compile(r"O|[BI]-\S+")


class LabelForm(Protocol):
    """How one kind of label is read."""

    def read(self, value: object) -> str | None:
        """Return the canonical text of a field's value, None for a missing one; raises RecordProblem."""

    def unknown(self, label: str) -> RecordProblem | None:
        """Return why a label that was read is none of the model's, or None."""

    def misfit(self, label: str, text: str, pair: str | None) -> RecordProblem | None:
        """Return why a label cannot be that of a text, or of a pair, or None."""

    def text(self, value: object) -> object:
        """Return the text that a field's value means, where it is not one already."""

    def value(self, label: str) -> Any:
        """Return what stands for a canonical text in a JSON record."""


class _OfAnyText:
    """What holds of labels that do not depend on the words of their text."""

    def misfit(self, label: str, text: str, pair: str | None) -> RecordProblem | None:
        """Return None: any text may have any label."""
        return None

    def text(self, value: object) -> object:
        """Return the value."""
        return value


class Names(_OfAnyText):
    """One name: a string, or a whole number, which is read as its digits; `names` are those known, None allows any.

    Blanks at its ends are no part of a name: a table or an export of a spreadsheet leaves them there unseen.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = names
        self.known = frozenset(names or ())

    def read(self, value: object) -> str | None:
        """Return the name; raises RecordProblem."""
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "":
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


class Numbers(_OfAnyText):
    """One number: a JSON number, or a text that is one; canonical is the shortest text that reads back the same."""

    def __init__(self, names: Sequence[str] | None = None) -> None:
        pass

    def read(self, value: object) -> str | None:
        """Return the number; raises RecordProblem for what is none, is infinite, or is NaN."""
        if isinstance(value, str):
            value = value.strip()
            if value and not NUMBER.fullmatch(value):
                raise RecordProblem(f"the label {quoted(value)} is not a number", NUMBER_HINT)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise RecordProblem(f"'label' is {json_type(value)}, not a number", NUMBER_HINT)
        number = _float(value)
        if not abs(number) <= LARGEST:
            shown = "NaN, which is no number" if math.isnan(number) else f"beyond {LARGEST:g}"
            raise RecordProblem(f"'label' is {shown}", "remove the example or correct its label")
        return repr(number + 0.0)  # no minus zero

    def unknown(self, label: str) -> RecordProblem | None:
        """Return None: a model of numbers takes any."""
        return None

    def value(self, label: str) -> float:
        """Return the number."""
        return float(label)


class NameLists(_OfAnyText):
    """Any number of names: a list of strings, or a text that is one in JSON; canonical is the sorted list in JSON.

    `names` are those known, None allows any. An empty list says that no label applies; a missing one says nothing.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self._name = Names(names)

    def read(self, value: object) -> str | None:
        """Return the names; raises RecordProblem."""
        if isinstance(value, str):
            value = _list_in(value)
        if value is None:
            return None
        if not isinstance(value, list):
            raise RecordProblem(f"'label' is {json_type(value)}, not a list of strings", LIST_HINT)
        names = [self._name.read(item) for item in value]
        if None in names:
            raise RecordProblem("a label in the list is empty", LIST_HINT)
        return json.dumps(sorted(set(filter(None, names))), ensure_ascii=False)

    def unknown(self, label: str) -> RecordProblem | None:
        """Return the problem of the first name that is not known."""
        return next((wrong for name in self.value(label) if (wrong := self._name.unknown(name))), None)

    def value(self, label: str) -> list[str]:
        """Return the names."""
        return list(json.loads(label))


class Tags:
    """One tag a word, words being what blanks separate: a list of strings, or a text with blanks between the tags.

    Canonical is that text. `names` are the tags that the model knows, None allows any. The text may be a list of words.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self._name = Names(names)

    def read(self, value: object) -> str | None:
        """Return the tags; raises RecordProblem for one that is not O, B-name or I-name."""
        if isinstance(value, str):
            value = value.split()
            if not value:
                return None
        if value is None:
            return None
        if not isinstance(value, list):
            raise RecordProblem(f"'label' is {json_type(value)}, not a list of tags", TAGS_HINT)
        for tag in value:
            if not isinstance(tag, str) or not BIO.fullmatch(tag):
                found = quoted(tag) if isinstance(tag, str) else json_type(tag)
                raise RecordProblem(f"the tag {found} is not O, nor B- or I- and a name", TAGS_HINT)
        return checked_text(" ".join(value), "label")

    def unknown(self, label: str) -> RecordProblem | None:
        """Return the problem of the first tag that is not known."""
        return next((wrong for tag in self.value(label) if (wrong := self._name.unknown(tag))), None)

    def misfit(self, label: str, text: str, pair: str | None) -> RecordProblem | None:
        """Return the problem where there is not one tag a word."""
        tags, words = len(label.split()), len(text.split())
        return None if tags == words else RecordProblem(f"{tags} tags for {words} words", TAGS_HINT)

    def text(self, value: object) -> object:
        """Return a list of words with blanks between them; raises RecordProblem for a word that holds a blank."""
        if not isinstance(value, list):
            return value
        for word in value:
            if not isinstance(word, str) or word.split() != [word]:
                found = quoted(word) if isinstance(word, str) else json_type(word)
                raise RecordProblem(
                    f"the word {found} is empty, holds a blank, or is no string", "give one word an item"
                )
        return " ".join(value)

    def value(self, label: str) -> list[str]:
        """Return the tags."""
        return label.split()


class Answers(_OfAnyText):
    """Spans of the text's pair that answer the text: a list of {"text", "answer_start"}, or an answer itself.

    Canonical is the list [[start, text], ...] in JSON, start in characters, -1 where it was not said: the first place
    of the answer then. An empty list says that there is no answer; what `datasets` writes ({"text": [...],
    "answer_start": [...]}) is read too. The first answer is the one that is learned.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        pass

    def read(self, value: object) -> str | None:
        """Return the answers; raises RecordProblem."""
        if isinstance(value, str):
            value = _written_answers(value)
        if value is None:
            return None
        if isinstance(value, dict):
            value = _as_list(value)
        if not isinstance(value, list):
            raise RecordProblem(f"'label' is {json_type(value)}, not a list of answers", ANSWERS_HINT)
        found = []
        for item in value:
            start, text = _answer(item)
            if [start, text] not in found:
                found.append([start, text])
        return json.dumps(found, ensure_ascii=False)

    def unknown(self, label: str) -> RecordProblem | None:
        """Return None: an answer may be any span."""
        return None

    def misfit(self, label: str, text: str, pair: str | None) -> RecordProblem | None:
        """Return the problem where there is nothing to find an answer in, or the answer is not there."""
        if pair is None:
            return RecordProblem("no 'text_pair'", "the text is a question, text_pair holds its answer")
        for start, answer in json.loads(label):
            if start < 0 and answer not in pair:
                return RecordProblem(f"the answer {quoted(answer)} is not in 'text_pair'", ANSWERS_HINT)
            if start >= 0 and pair[start : start + len(answer)] != answer:
                found = quoted(pair[start : start + len(answer)])
                return RecordProblem(f"at answer_start {start} is {found}, not {quoted(answer)}", ANSWERS_HINT)
        return None

    def value(self, label: str) -> list[dict[str, Any]]:
        """Return the answers as a SQuAD file has them."""
        return [{"text": text, "answer_start": start} for start, text in json.loads(label)]


def _written_answers(text: str) -> object:
    """Return the answers that a cell of a table holds: a list in JSON, or one answer; None for an empty one."""
    if not text.strip():
        return None
    if text.lstrip().startswith("["):
        with suppress(ValueError, RecursionError):
            return list(json.loads(text))
    return [text]


def _as_list(value: dict[str, Any]) -> list[object]:
    texts, starts = value.get("text"), value.get("answer_start")
    if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
        raise RecordProblem("'label' has not as many of 'answer_start' as of 'text'", ANSWERS_HINT)
    return [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]


def _answer(item: object) -> tuple[int, str]:
    """Return start and text of one answer; raises RecordProblem."""
    if isinstance(item, list) and len(item) == 2:
        item = {"text": item[1], "answer_start": item[0]}
    if isinstance(item, str):
        item = {"text": item}
    if not isinstance(item, dict):
        raise RecordProblem(f"an answer is {json_type(item)}, not an object", ANSWERS_HINT)
    start = item.get("answer_start", -1)
    if not isinstance(start, int) or isinstance(start, bool) or start < -1:
        raise RecordProblem(f"answer_start is {quoted(str(start))}, not a place in 'text_pair'", ANSWERS_HINT)
    text = checked_text(item.get("text"), "text of an answer")
    if not text.strip():
        raise RecordProblem("an answer is empty", "write [] where there is none")
    return start, text


def _list_in(text: str) -> object:
    """Return the list that a cell of a table holds, None for an empty one."""
    if not text.strip():
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise RecordProblem(f"the label {quoted(text)} is not a list", LIST_HINT)
    return found


def _float(value: float | str) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


FORMS: dict[str, Callable[[Sequence[str] | None], LabelForm]] = {
    "name": Names,
    "names": NameLists,
    "number": Numbers,
    "tags": Tags,
    "answers": Answers,
}


def label_form(form: str, names: Sequence[str] | None = None) -> LabelForm:
    """Return a form by the word for it in a bundle's manifest; `names` are the labels that the model knows."""
    return FORMS[form](names)
