"""Tables: what separates them, which characters are texts and which are line ends, and how long a row may be."""

import csv
import tracemalloc
from pathlib import Path

import pytest

from edge_far.errors import DataError
from edge_far.texts.data import Example, read_examples
from edge_far.texts.reading.lines import MAX_LINE_BYTES

SEMICOLONS = ("the columns are separated by semicolons, not by commas", "save it with commas, or as JSONL")
TABS = ("the columns are separated by tabs, not by commas", "name the file .tsv, or save it with commas")
LONE_RETURNS = ("lines end in a carriage return alone (CR)", r"convert the file, for example with tr '\r' '\n'")
REFUSED = {
    "semicolons": ("a.csv", "text;label\na;l0\n", 1, *SEMICOLONS),
    "semicolons, BOM, CRLF": ("a.csv", "\ufefftext;label\r\na;l0\r\n", 1, *SEMICOLONS),
    "semicolons, quotes, blanks, case": ("a.csv", '"Label" ; "Text"\n"l0";"a"\n', 1, *SEMICOLONS),
    "semicolons, another name": ("a.csv", "sentence;label\na;l0\n", 1, *SEMICOLONS),
    "sep=;": ("a.csv", "\ufeffsep=;\r\ntext;label\r\na;l0\r\n", 1, *SEMICOLONS),
    "sep=; in quotes": ("a.csv", '"sep=;"\ntext;label\n', 1, *SEMICOLONS),
    "SEP=tab": ("a.csv", "SEP=\t\ntext\tlabel\n", 1, *TABS),
    "tabs in .csv": ("a.csv", "text\tlabel\na\tl0\n", 1, *TABS),
    "bars in .csv": (
        *("a.csv", "id|text|label\n1|a|l0\n", 1),
        *("the columns are separated by vertical bars, not by commas", "save it with commas, or as JSONL"),
    ),
    "commas in .tsv": (
        *("a.tsv", "text,label\na,l0\n", 1),
        *("the columns are separated by commas, not by tabs", "name the file .csv, or save it with tabs"),
    ),
    "semicolons in .tsv": (
        *("a.tsv", "text;label\na;l0\n", 1),
        *("the columns are separated by semicolons, not by tabs", "save it with tabs, or as JSONL"),
    ),
    "sep= of an unknown kind": (
        *("a.csv", "sep=\x1b\ntext,label\n", 1),
        *(r"the columns are separated by '\x1b', not by commas", "save it with commas, or as JSONL"),
    ),
    "CR alone in .tsv": ("a.tsv", "text\tlabel\ra\tl0\rb\tl1\r", 1, *LONE_RETURNS),
    "CR alone in .csv": ("a.csv", "text,label\ra,l0\rb,l1\r", 1, *LONE_RETURNS),
    "CR alone in a field without quotes": (
        *("a.csv", "text,label\na\rb,l0\n", 2),
        "broken CSV: a carriage return alone (CR), outside quotes",
        r"put that field in quotes, or convert line ends, for example with tr '\r' '\n'",
    ),
    "CR alone, longer than a line": ("a.tsv", "text\tlabel\r" + "a\tl0\r" * 220_000, 1, *LONE_RETURNS),
    "files joined": (
        *("a.csv", "text,label\na,l0\ntext, label\nb,l1\n", 3),
        *("the header stands here again", "were two files joined? remove this line"),
    ),
    "trailing comma in a row": (
        *("a.csv", "text,label\na,l0,\n", 2),
        *("3 fields where the header has 2", "quote a field that holds a comma"),
    ),
    "trailing column missing": (
        *("a.csv", "text,label,text_pair\na,l0\n", 2),
        *("2 fields where the header has 3", "give every row all the fields of the header"),
    ),
    "other case": ("a.csv", " TEXT ,label\na,l0\n", 1, "unknown field 'TEXT'", "did you mean 'text'?"),
    "column twice but for blanks": (
        *("a.csv", "text,label, label \na,l0,l1\n", 1),
        "column 'label' appears twice in the header",
        "the first line of a CSV file names the columns, for example text,label",
    ),
    "text after a closing quote": (
        *("a.csv", 'text,label\n"a" b,l0\n', 2),
        *("broken CSV: ',' expected after '\"'", "double every quote inside a quoted field and close it"),
    ),
}


def write(tmp_path: Path, name: str, content: str) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    name, content, line, message, hint = REFUSED[case]
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_examples(path, labels=["l0", "l1"])
    assert str(caught.value) == f"{path}:{line}: {message} ({hint})"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "sep=,\r\ntext,label\r\na,l0\r\n", [Example("a", None, "l0")]),
        ("a.tsv", "\ufeffsep=\t\ntext\tlabel\na\tl0\n", [Example("a", None, "l0")]),
        ("a.csv", "text,label\nsep=;,l0\n", [Example("sep=;", None, "l0")]),
        ("a.csv", "a;b,text,label\nx,a,l0\n", [Example("a", None, "l0")]),
        ("a.csv", "text,label,,\na,l0,,\n", [Example("a", None, "l0")]),
        ("a.csv", "id,text,label,id\n1,a,l0,2\n", [Example("a", None, "l0")]),
        ("a.csv", 'text,label\n"a\rb",l0\n', [Example("a\rb", None, "l0")]),
        ("a.csv", 'text,label\na "b" c,l0\n', [Example('a "b" c', None, "l0")]),
        ("a.tsv", "text\tlabel\na\rb\tl0\r\n\rc\tl0", [Example("a\rb", None, "l0"), Example("\rc", None, "l0")]),
    ],
)
def test_accepted(name: str, content: str, expected: list[Example], tmp_path: Path) -> None:
    assert read_examples(write(tmp_path, name, content), labels=["l0", "l1"]) == expected


def test_one_column_may_hold_its_own_name(tmp_path: Path) -> None:
    examples = read_examples(write(tmp_path, "a.csv", "text\ntext\n"), labels=None, require_labels=False)
    assert examples == [Example("text")]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_field_is_as_long_as_a_line_in_every_format(name: str, tmp_path: Path) -> None:
    before = csv.field_size_limit()
    text = "a" * (MAX_LINE_BYTES - 40)
    separator = "," if name == "a.csv" else "\t"
    frame = f"text{separator}label\n%s{separator}l0\n"
    if name == "a.jsonl":
        frame = '{"text": "%s", "label": "l0"}\n'
    assert read_examples(write(tmp_path, name, frame % text), labels=["l0"]) == [Example(text, None, "l0")]
    with pytest.raises(DataError, match=f"line longer than {MAX_LINE_BYTES} bytes"):
        read_examples(write(tmp_path, name, frame % ("a" * MAX_LINE_BYTES)), labels=["l0"])
    assert csv.field_size_limit() == before


def test_an_open_quote_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b'text,label\n"a,l0\n' + b"\n" * 2000)
        for _ in range(40):
            file.write((b"b" * 1000 + b",l1\n") * 1000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r":2: row longer than 1048576 bytes \(is a quote never closed\?\)"):
            read_examples(path, labels=["l0"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
