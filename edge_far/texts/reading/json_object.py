"""One line of JSON as an object; every other line is a RecordProblem. For data files and for the spool."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from edge_far.texts.reading.lines import has_lone_return, lone_returns
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["checked_text", "json_type", "read_object"]

HINT = 'each line is one object such as {"text": "lights on", "label": "light_on"}'
MEANINGFUL = ("text", "text_pair", "label", "id", "prediction", "feedback")
_TYPES = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}


class _Object(dict[str, object]):
    """An object that knows which of its names stand there more than once."""

    def __init__(self, pairs: Sequence[tuple[str, object]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs) if len(self) < len(pairs) else {}
        self.repeated = {name for name, count in counts.items() if count > 1}


def read_object(line: str) -> dict[str, object]:
    """Return the object that a line holds; raises RecordProblem, also where a field that counts is there twice."""
    try:
        record = json.loads(line, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        if has_lone_return(line):
            raise lone_returns() from error
        raise RecordProblem(f"broken JSON at column {error.colno}: {error.msg}", HINT) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets nested as deep
        raise RecordProblem("broken JSON: number too long or nested too deeply", HINT) from error
    if not isinstance(record, _Object):
        raise RecordProblem(f"{json_type(record)} instead of an object", HINT)
    for name in MEANINGFUL:
        if name in record.repeated:
            raise RecordProblem(f"the field '{name}' is there twice", "leave one")
    return record


def json_type(value: object) -> str:
    """Return what JSON calls a value, with its article."""
    return "null" if value is None else _TYPES.get(type(value), "an object")


def checked_text(value: object, field: str, wanted: str = "a string") -> str:
    """Return a field's value that has to be a text; raises RecordProblem."""
    if not isinstance(value, str):
        raise RecordProblem(f"'{field}' is {json_type(value)}, not {wanted}", "put it in quotes")
    if "\0" in value:
        raise RecordProblem(f"'{field}' holds a NUL character", "remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordProblem(
            f"'{field}' holds half of a surrogate pair", "write the character itself in UTF-8"
        ) from None
    return value
