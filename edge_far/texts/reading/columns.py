"""`--columns text=sentence1,label=gold_label`: which of a file's fields is which of ours. Knows no format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge_far.errors import UsageError
from edge_far.quoting import quoted
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["FIELDS", "Columns", "parse_columns"]

FIELDS = ("text", "text_pair", "label")
_EXAMPLE = "for example --columns text=sentence1,text_pair=sentence2,label=gold_label"


@dataclass(frozen=True)
class Columns:
    """The file's name of each of our fields; one that is not named here has its own."""

    names: Mapping[str, str] = field(default_factory=dict)

    def record(self, record: Mapping[str, object]) -> Mapping[str, object]:
        """Return a record by our names; raises RecordProblem where the text is missing."""
        if not self.names:
            return record
        if "text" in self.names and self.names["text"] not in record:
            raise self._missing("text")
        given = {name: record[column] for name, column in self.names.items() if column in record}
        return {**{name: value for name, value in record.items() if name not in self._gone}, **given}

    def header(self, header: Sequence[str]) -> list[str]:
        """Return the header of a table by our names; raises RecordProblem where a column is missing."""
        for name, column in self.names.items():
            if column not in header:
                raise self._missing(name)
        ours = {column: name for name, column in self.names.items()}
        return [ours.get(column, "" if column in self._gone else column) for column in header]

    @property
    def _gone(self) -> frozenset[str]:
        """Return the names in the file that mean nothing, or something else, once the named ones are taken."""
        return frozenset(self.names) | frozenset(self.names.values())

    def _missing(self, name: str) -> RecordProblem:
        return RecordProblem(f"no field {quoted(self.names[name])}", f"--columns says that it is '{name}'")


def parse_columns(word: str) -> Columns:
    """Return what the option says; raises UsageError (64)."""
    names: dict[str, str] = {}
    for part in word.split(","):
        ours, equals, column = (piece.strip() for piece in part.partition("="))
        if not equals or not column or ours not in FIELDS:
            wanted = f"not one of {', '.join(FIELDS)} with '=' and a name"
            raise UsageError(f"{quoted(part)} is {wanted}", where="--columns", hint=_EXAMPLE)
        if ours in names or column in names.values():
            raise UsageError(f"{quoted(part)} names one a second time", where="--columns", hint=_EXAMPLE)
        names[ours] = column
    return Columns(names)
