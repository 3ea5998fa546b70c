"""Training and evaluation data from JSONL, CSV, TSV or CoNLL files; every error names file and line.

Refuses to know the tokenizer and the model. The formats are described in docs/reference/data-files.md; lines.py reads
lines, tables.py rows, json_object.py objects, conll.py tagged words, arrow.py what a workstation has besides.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_far.errors import DataError, StorageError
from edge_far.quoting import quoted
from edge_far.texts.labels import LabelForm, Names
from edge_far.texts.reading.arrow import arrow_records, is_arrow
from edge_far.texts.reading.columns import FIELDS, Columns
from edge_far.texts.reading.conll import conll_records
from edge_far.texts.reading.files import PACKING_ERRORS, check_packing, format_of, open_data, packing_problem
from edge_far.texts.reading.json_object import checked_text, read_object
from edge_far.texts.reading.lines import Lines
from edge_far.texts.reading.problems import FileProblems, NothingMoreToTell, RecordProblem
from edge_far.texts.reading.squad import squad_records
from edge_far.texts.reading.tables import table_records

__all__ = [
    "OUR_NAMES",
    "Example",
    "ExampleChecker",
    "Labels",
    "iterate_examples",
    "label_names",
    "look_alikes",
    "read_examples",
]

Labels = LabelForm | Sequence[str] | None


OUR_NAMES = Columns()


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair of texts with its label; the label is None where none was given, else its canonical text."""

    text: str
    text_pair: str | None = None
    label: str | None = None


def read_examples(
    path: Path, *, labels: Labels, require_labels: bool = True, columns: Columns = OUR_NAMES
) -> list[Example]:
    """Return all examples of a file at once; everything else is as with `iterate_examples`."""
    return list(iterate_examples(path, labels=labels, require_labels=require_labels, columns=columns))


def iterate_examples(
    path: Path, *, labels: Labels, require_labels: bool = True, columns: Columns = OUR_NAMES
) -> Iterator[Example]:
    """Yield the examples of a file whose suffix says its format: .jsonl, .ndjson, .csv, .tsv, .conll or .json (SQuAD).

    It may be packed by gzip. On a workstation Parquet too, and a directory that `datasets` has saved; there a number
    counts rows.

    `labels` is the form of a task's labels; or the names that the bundle knows, None for any name. Without
    `require_labels` a label may be missing and may be unknown (prediction does not need it). `columns` says how the
    file calls our fields. Raises InputMissing (66), StorageError (74), Unavailable (69), and DataError (65) with the
    first error in full and the lines of up to four more: only at the end, so what was yielded before counts only if the
    end is reached.
    """
    path = Path(path)
    problems = FileProblems(path)
    checker = ExampleChecker(labels, require_labels)
    count = 0
    try:
        for number, record in _records(path, problems, checker, columns):
            try:
                example = checker.example(record)
            except RecordProblem as wrong:
                problems.add(number, wrong)
                continue
            count += 1
            yield example
    except NothingMoreToTell:
        pass
    problems.raise_if_any()
    if not count:
        raise DataError("the file holds no examples", where=str(path), hint="give a file with at least one example")


def _records(
    path: Path, problems: FileProblems, checker: ExampleChecker, columns: Columns
) -> Iterator[tuple[int, Mapping[str, object]]]:
    """Yield the number of each line or row and its record, by our names."""
    if is_arrow(path):
        needed = [
            columns.names.get(name, name) for name in ("text", "label") if name == "text" or checker.require_labels
        ]
        yield from ((number, columns.record(record)) for number, record in arrow_records(path, needed))
        return
    kind = format_of(path)
    with open_data(path) as file:
        if kind is None:
            raise DataError(
                f"unknown data format {quoted(path.suffix)}",
                where=str(path),
                hint="name the file .jsonl, .csv, .tsv or .conll",
            )
        lines = Lines(file, problems)
        try:
            if kind == "JSONL":
                yield from _jsonl_records(lines, problems, columns)
            elif kind == "CoNLL":
                yield from conll_records(lines)
            elif kind == "SQuAD":
                yield from squad_records(lines, problems)
            else:
                yield from table_records(
                    lines, problems, kind, lambda names: _checked_header(columns.header(names), kind, checker)
                )
        except NothingMoreToTell:
            check_packing(path, file)  # what is damaged unpacks to wrong lines
            raise
        except PACKING_ERRORS as error:
            raise packing_problem(path, error) from error
        except OSError as error:
            raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error
    if lines.number == 0:
        raise DataError("the file is empty", where=str(path), hint="give a file with at least one example")


def label_names(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels in a stable order: by number if all are whole numbers, else by text."""
    names = set(labels)
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def look_alikes(names: Sequence[str]) -> list[list[str]]:
    """Return groups of labels that differ only in blanks, in case, or in how Unicode writes the same characters."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_folded(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _folded(name: str) -> str:
    """Return what is left of a label when blanks, invisible characters, case and Unicode form are taken away."""
    letters = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    visible = "".join(letter for letter in letters if unicodedata.category(letter) != "Cf")
    return " ".join(visible.split())


class ExampleChecker:
    """Turns the fields of a record into an Example, or says what is wrong with them."""

    def __init__(self, labels: Labels, require_labels: bool) -> None:
        self.labels = Names(labels) if labels is None or isinstance(labels, Sequence) else labels
        self.require_labels = require_labels

    def example(self, record: Mapping[str, object]) -> Example:
        """Return the example; raises RecordProblem."""
        _refuse_misspelt(record)
        if "text" not in record:
            raise RecordProblem("no field 'text'", "each example needs one")
        text = checked_text(self.labels.text(record["text"]), "text")
        if not text.strip():
            raise RecordProblem("'text' is empty", "remove the example or give it a text")
        given = record.get("text_pair")
        pair = checked_text(given, "text_pair") if given is not None else None
        pair = pair if pair and pair.strip() else None
        return Example(text, pair, self._label(record.get("label"), text, pair))

    def _label(self, value: object, text: str, pair: str | None) -> str | None:
        label = self.labels.read(value)
        if label is not None and (wrong := self.labels.misfit(label, text, pair)):
            raise wrong
        if label is None and self.require_labels:
            raise RecordProblem("no label", "give every example a label or remove it")
        if label is not None and self.require_labels and (wrong := self.labels.unknown(label)):
            raise wrong
        return label


def _jsonl_records(
    lines: Lines, problems: FileProblems, columns: Columns
) -> Iterator[tuple[int, Mapping[str, object]]]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = columns.record(read_object(line))
        except RecordProblem as wrong:
            problems.add(lines.number, wrong)
        else:
            yield lines.number, record


def _checked_header(names: list[str], kind: str, checker: ExampleChecker) -> list[str]:
    """Return the names; raises RecordProblem for a header that lacks a column, or has one of ours twice."""
    separator = "," if kind == "CSV" else "<tab>"
    hint = f"the first line of a {kind} file names the columns, for example text{separator}label"
    _refuse_misspelt(names)
    if "text" not in names:
        raise RecordProblem("no header with a column 'text'", hint)
    if "label" not in names and checker.require_labels:
        raise RecordProblem("no column 'label' in the header", hint)
    for name in FIELDS:
        if names.count(name) > 1:
            raise RecordProblem(f"column '{name}' appears twice in the header", hint)
    return names


def _refuse_misspelt(names: Collection[str]) -> None:
    """Other fields are ignored, but not one that is meant to be ours: 'lable', 'Text', 'text-pair'."""
    for name in names:
        if name in FIELDS:
            continue
        near = difflib.get_close_matches(name.lower().strip(), FIELDS, n=1, cutoff=0.75)
        if near and near[0] not in names:
            raise RecordProblem(f"unknown field {quoted(name)}", f"did you mean '{near[0]}'?")
