"""Training and evaluation data from JSONL, CSV or TSV files; every error names file and line.

Refuses to know the tokenizer and the model. The formats are described in docs/reference/data-files.md. Files are read
line by line with a bound on the length of a line, so that a wrong file costs neither memory nor time.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_far.errors import DataError, InputMissing, StorageError

__all__ = ["Example", "ExampleChecker", "RecordProblem", "iterate_examples", "label_names", "read_examples"]

MAX_LINE_BYTES = 1 << 20
MAX_ERRORS = 5
FIELDS = ("text", "text_pair", "label")
FORMATS = {".jsonl": "JSONL", ".ndjson": "JSONL", ".csv": "CSV", ".tsv": "TSV"}
UTF8_HINT = "convert the file to UTF-8, for example with iconv -f LATIN1 -t UTF-8"
JSONL_HINT = 'each line is one object such as {"text": "lights on", "label": "light_on"}'


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair of texts with its label; the label is None where none was given."""

    text: str
    text_pair: str | None = None
    label: str | None = None


def read_examples(path: Path, *, labels: Sequence[str] | None, require_labels: bool = True) -> list[Example]:
    """Return all examples of a file at once; everything else is as with `iterate_examples`."""
    return list(iterate_examples(path, labels=labels, require_labels=require_labels))


def iterate_examples(path: Path, *, labels: Sequence[str] | None, require_labels: bool = True) -> Iterator[Example]:
    """Yield the examples of a file whose suffix says its format: .jsonl, .ndjson, .csv or .tsv.

    `labels` are the labels the bundle knows; None accepts any. Without `require_labels` a label may be
    missing and may be unknown (prediction does not need it). Raises InputMissing (66), StorageError (74), and
    DataError (65) with the first error in full and the lines of up to four more: only at the end, so what was
    yielded before counts only if the end is reached.
    """
    path = Path(path)
    kind = FORMATS.get(path.suffix.lower())
    file = _open(path)
    with file:
        if kind is None:
            raise DataError(
                f"unknown data format '{path.suffix}'",
                where=str(path),
                hint="name the file .jsonl, .csv or .tsv",
            )
        problems = _Problems(path)
        checker = ExampleChecker(labels, require_labels)
        lines = _Lines(file, problems)
        records = _jsonl_records(lines, problems) if kind == "JSONL" else _table_records(lines, problems, kind, checker)
        count = 0
        try:
            for number, record in records:
                try:
                    example = checker.example(record)
                except RecordProblem as wrong:
                    problems.add(number, wrong)
                    continue
                count += 1
                yield example
        except _Stop:
            pass
        except OSError as error:
            raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error
    problems.raise_if_any()
    if not count:
        what = "the file is empty" if lines.number == 0 else "the file holds no examples"
        raise DataError(what, where=str(path), hint="give a file with at least one example")


def label_names(examples: Sequence[Example]) -> list[str]:
    """Return the distinct labels in a stable order: by number if all are whole numbers, else by text."""
    names = {example.label for example in examples if example.label is not None}
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


class RecordProblem(Exception):
    """What is wrong with one record, and what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class _Stop(Exception):
    """Reading on would only repeat errors."""


class _Problems:
    """Up to MAX_ERRORS errors of one file, told as one line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[tuple[int, RecordProblem]] = []
        self.stopped = False

    def add(self, number: int, wrong: RecordProblem, *, last: bool = False) -> None:
        """Note an error of line `number`; raises _Stop when it is the last one worth telling."""
        self.found.append((number, wrong))
        if last or len(self.found) == MAX_ERRORS:
            self.stopped = True
            raise _Stop

    def raise_if_any(self) -> None:
        """Raise the DataError for everything found."""
        if not self.found:
            return
        number, wrong = self.found[0]
        message = wrong.message
        if others := [str(number) for number, _ in self.found[1:]]:
            count = f"at least {len(others)}" if self.stopped else str(len(others))
            where = f"lines {', '.join(others[:-1])} and {others[-1]}" if len(others) > 1 else f"line {others[0]}"
            message = f"{message}; and {count} more, on {where}"
        raise DataError(message, where=f"{self.path}:{number}", hint=wrong.hint)


class _Lines:
    """The text lines of a file, bounded in length; `number` counts them, `first` is the record's."""

    def __init__(self, file: BinaryIO, problems: _Problems) -> None:
        self.file = file
        self.problems = problems
        self.number = 0
        self.first = 0

    def __iter__(self) -> Iterator[str]:
        while raw := self.file.readline(MAX_LINE_BYTES + 1):
            self.number += 1
            if len(raw) > MAX_LINE_BYTES:
                hint = "one example is one line; is this the right file?"
                self.problems.add(
                    self.number, RecordProblem(f"line longer than {MAX_LINE_BYTES} bytes", hint), last=True
                )
            if self.number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                hint = "convert it, for example with iconv -f UTF-16 -t UTF-8"
                self.problems.add(1, RecordProblem("the file is UTF-16, not UTF-8", hint), last=True)
            if b"\0" in raw:
                hint = "is this a text file in UTF-8?"
                self.problems.add(self.number, RecordProblem("line holds NUL bytes", hint))
                continue
            try:
                text = raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                wrong = RecordProblem(
                    f"not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start + 1}", UTF8_HINT
                )
                self.problems.add(self.number, wrong)
                continue
            self.first = self.first or self.number
            yield text


class ExampleChecker:
    """Turns the fields of a record into an Example, or says what is wrong with them."""

    def __init__(self, labels: Sequence[str] | None, require_labels: bool) -> None:
        self.labels = labels
        self.known = frozenset(labels or ())
        self.require_labels = require_labels

    def example(self, record: Mapping[str, object]) -> Example:
        """Return the example; raises RecordProblem."""
        _refuse_misspelt(record)
        if "text" not in record:
            raise RecordProblem("no field 'text'", "each example needs one")
        text = _text(record["text"], "text")
        if not text.strip():
            raise RecordProblem("'text' is empty", "remove the example or give it a text")
        pair = record.get("text_pair")
        pair = _text(pair, "text_pair") if pair is not None else ""
        return Example(text, pair if pair.strip() else None, self._label(record.get("label")))

    def _label(self, value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or (isinstance(value, str) and not value.strip()):
            if self.require_labels:
                raise RecordProblem("no label", "give every example a label or remove it")
            return None
        label = _text(value, "label", "a string or a whole number")
        if self.labels is not None and self.require_labels and label not in self.known:
            near = difflib.get_close_matches(label, self.labels, n=1)
            question = f"did you mean '{near[0]}'? " if near else ""
            count = f"{len(self.labels)} label{'s' if len(self.labels) != 1 else ''}"
            raise RecordProblem(f"unknown label {_quoted(label)}", f"{question}the bundle has {count}")
        return label


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise DataError("is a directory, not a data file", where=str(path), hint="name one file in it")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputMissing("data file does not exist", where=str(path), hint="check the path") from error
    except OSError as error:
        raise StorageError(
            f"cannot read: {error.strerror}", where=str(path), hint="check the owner and the mode of the file"
        ) from error


def _jsonl_records(lines: _Lines, problems: _Problems) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problems.add(lines.number, RecordProblem(f"broken JSON at column {error.colno}: {error.msg}", JSONL_HINT))
        except (ValueError, RecursionError):  # a number of thousands of digits, or brackets nested as deep
            problems.add(lines.number, RecordProblem("broken JSON: number too long or nested too deeply", JSONL_HINT))
        else:
            if isinstance(record, dict):
                yield lines.number, record
            else:
                problems.add(lines.number, RecordProblem(f"{_json_type(record)} instead of an object", JSONL_HINT))


def _table_records(
    lines: _Lines, problems: _Problems, kind: str, checker: ExampleChecker
) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the rows below the header; CSV is quoted as in RFC 4180, TSV has no quoting."""
    if kind == "CSV":
        reader = csv.reader(iter(lines), strict=True)
    else:
        reader = csv.reader(iter(lines), delimiter="\t", quoting=csv.QUOTE_NONE)
    header: list[str] | None = None
    while True:
        lines.first = 0
        try:
            row = next(reader, None)
        except csv.Error as error:
            hint = "double every quote inside a quoted field and close it" if kind == "CSV" else None
            problems.add(lines.first or lines.number, RecordProblem(f"broken {kind}: {error}", hint), last=True)
        if row is None:
            return
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = _header(row, lines, problems, kind, checker)
        elif len(row) != len(header):
            hint = "quote a field that holds a comma" if kind == "CSV" else "a text cannot hold a tab"
            if len(row) < len(header):
                hint = "give every row all the fields of the header"
            wrong = RecordProblem(f"{_count(len(row), 'field')} where the header has {len(header)}", hint)
            problems.add(lines.first, wrong)
        else:
            yield lines.first, dict(zip(header, row, strict=True))


def _header(row: list[str], lines: _Lines, problems: _Problems, kind: str, checker: ExampleChecker) -> list[str]:
    """Return the column names of the first row; a wrong header ends the reading."""
    header = [name.strip() for name in row]
    separator = "," if kind == "CSV" else "<tab>"
    hint = f"the first line of a {kind} file names the columns, for example text{separator}label"
    try:
        _refuse_misspelt(dict.fromkeys(header))
        missing = [name for name in ("text", "label") if name not in header]
        if "text" in missing:
            raise RecordProblem("no header with a column 'text'", hint)
        if "label" in missing and checker.require_labels:
            raise RecordProblem("no column 'label' in the header", hint)
        for name in FIELDS:
            if header.count(name) > 1:
                raise RecordProblem(f"column '{name}' appears twice in the header", hint)
    except RecordProblem as wrong:
        problems.add(lines.first, wrong, last=True)
    return header


def _refuse_misspelt(names: Mapping[str, object]) -> None:
    """Other fields are ignored, but not one that is meant to be ours: 'lable', 'Text', 'text-pair'."""
    for name in names:
        if name in FIELDS:
            continue
        near = difflib.get_close_matches(name.lower().strip(), FIELDS, n=1, cutoff=0.75)
        if near and near[0] not in names:
            raise RecordProblem(f"unknown field {_quoted(name)}", f"did you mean '{near[0]}'?")


def _text(value: object, field: str, wanted: str = "a string") -> str:
    if not isinstance(value, str):
        raise RecordProblem(f"'{field}' is {_json_type(value)}, not {wanted}", "put it in quotes")
    if "\0" in value:
        raise RecordProblem(f"'{field}' holds a NUL character", "remove it")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordProblem(
            f"'{field}' holds half of a surrogate pair", "write the character itself in UTF-8"
        ) from None
    return value


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "an array"}
    return kinds.get(type(value), "an object")


def _quoted(text: str) -> str:
    """Return the text in quotes, on one line and short enough for a message."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
