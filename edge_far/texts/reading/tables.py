"""The rows of CSV and TSV files as records, by the names in the header. Refuses to know what the fields mean.

CSV is quoted as in RFC 4180; in TSV every character stands for itself. A table that is separated by something else
is refused, with the separator that was seen.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from edge_far.texts.reading.lines import LINE_END_BYTES, MAX_LINE_BYTES, Lines, has_lone_return, lone_returns
from edge_far.texts.reading.problems import FileProblems, RecordProblem

__all__ = ["table_records"]

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars", ":": "colons"}
SEPARATOR_OF = {"CSV": ",", "TSV": "\t"}
QUOTES_HINT = "double every quote inside a quoted field and close it"
# Spreadsheets begin a file with this line to say what separates the columns.
SEPARATOR_LINE = re.compile(r"sep=(.)", re.IGNORECASE | re.DOTALL)

CheckedNames = Callable[[list[str]], list[str]]


def table_records(
    lines: Lines, problems: FileProblems, kind: str, checked_names: CheckedNames
) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the line and the record of each row below the header of a 'CSV' or a 'TSV'.

    `checked_names` returns our names of the columns, and raises RecordProblem where they will not do; a wrong header
    ends the reading.
    """
    separator = SEPARATOR_OF[kind]
    source = _Source(lines, problems, separator)
    rows = _csv_rows(source, problems) if kind == "CSV" else _tsv_rows(source)
    header: list[str] | None = None
    names: list[str] = []
    for row in rows:
        if not any(cell.strip() for cell in row):
            continue
        try:
            if header is None:
                header = [name.strip() for name in row]
                names = checked_names(header)
            else:
                yield source.first, dict(zip(names, _checked(row, header, separator), strict=True))
        except RecordProblem as wrong:
            problems.add(source.first, wrong, last=source.in_header)
        source.in_header = False


class _Source:
    """The lines of a table: `first` is the line at which the row under way began, 0 before it has one.

    The lines up to the header are looked at before they are taken apart: is this the separator?
    """

    def __init__(self, lines: Lines, problems: FileProblems, separator: str) -> None:
        self.first = 0
        self.in_header = True
        self._lines = lines
        self._problems = problems
        self._separator = separator
        self._bytes = 0

    def __iter__(self) -> Iterator[str]:
        says_separator = True
        for line in self._lines:
            self._begin_or_go_on()
            if self.in_header and line.strip():
                try:
                    skip = says_separator and _says_separator(line, self._separator)
                    says_separator = False
                    if skip:
                        self.first = 0
                        continue
                    _check_separator(line, self._separator)
                except RecordProblem as wrong:
                    self._problems.add(self.first, wrong, last=True)
            yield line

    def _begin_or_go_on(self) -> None:
        """Count the bytes of a row, which may be no longer than a line; an open quote would hold the whole file."""
        self._bytes = self._bytes + LINE_END_BYTES + self._lines.size if self.first else self._lines.size
        self.first = self.first or self._lines.number
        if self._bytes > MAX_LINE_BYTES:
            wrong = RecordProblem(f"row longer than {MAX_LINE_BYTES} bytes", "is a quote never closed?")
            self._problems.add(self.first, wrong, last=True)


def _csv_rows(source: _Source, problems: FileProblems) -> Iterator[list[str]]:
    reader = csv.reader(iter(source), strict=True)
    while True:
        source.first = 0
        try:
            row = _next_row(reader)
        except csv.Error as error:
            problems.add(source.first, _broken_csv(error), last=True)
        if row is None:
            return
        yield row


def _tsv_rows(source: _Source) -> Iterator[list[str]]:
    for line in source:
        yield line.removesuffix("\n").removesuffix("\r").split("\t")
        source.first = 0


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """Return the next row, None at the end; fields may be as long as a line: Python's limit is raised meanwhile."""
    before = csv.field_size_limit(MAX_LINE_BYTES + LINE_END_BYTES)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _broken_csv(error: csv.Error) -> RecordProblem:
    if "new-line character" in str(error):
        hint = r"put that field in quotes, or convert line ends, for example with tr '\r' '\n'"
        return RecordProblem("broken CSV: a carriage return alone (CR), outside quotes", hint)
    return RecordProblem(f"broken CSV: {error}", QUOTES_HINT)


def _says_separator(line: str, separator: str) -> bool:
    """Return whether a first line is `sep=,`; raises RecordProblem where it names another separator."""
    said = SEPARATOR_LINE.fullmatch(line.rstrip("\r\n").replace('"', ""))
    if said and said[1] != separator:
        raise _wrong_separator(said[1], separator)
    return said is not None


def _check_separator(line: str, separator: str) -> None:
    """Raise RecordProblem for a header whose columns, or lines, are separated by something else."""
    if has_lone_return(line):
        raise lone_returns()
    if "text" in _names(line, separator):
        return
    for other in SEPARATORS:
        names = _names(line, other)
        if other != separator and len(names) > 1 and names & {"text", "label"}:
            raise _wrong_separator(other, separator)


def _names(line: str, separator: str) -> set[str]:
    return {cell.strip(' "\r\n').casefold() for cell in line.split(separator)}


def _wrong_separator(seen: str, separator: str) -> RecordProblem:
    hints = {
        ",": "name the file .csv, or save it with tabs",
        "\t": "name the file .tsv, or save it with commas",
    }
    name = SEPARATORS.get(seen, repr(seen))
    return RecordProblem(
        f"the columns are separated by {name}, not by {SEPARATORS[separator]}",
        hints.get(seen, f"save it with {SEPARATORS[separator]}, or as JSONL"),
    )


def _checked(row: list[str], header: list[str], separator: str) -> list[str]:
    """Return the cells of a row; raises RecordProblem where they do not fit the header."""
    if len(row) != len(header):
        found = f"{len(row)} field{'' if len(row) == 1 else 's'} where the header has {len(header)}"
        raise RecordProblem(found, _hint_on_fields(row, header, separator))
    if len(header) > 1 and [cell.strip() for cell in row] == header:
        raise RecordProblem("the header stands here again", "were two files joined? remove this line")
    return row


def _hint_on_fields(row: Sequence[str], header: Sequence[str], separator: str) -> str:
    if len(row) < len(header):
        return "give every row all the fields of the header"
    return "quote a field that holds a comma" if separator == "," else "a text cannot hold a tab"
