"""Reading of data files: formats, and each error by its message, its place and its exit code."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from edge_far.errors import DataError, EdgeFarError, InputMissing, StorageError
from edge_far.quoting import one_line
from edge_far.texts.data import Example, label_names, look_alikes, read_examples
from edge_far.texts.reading.lines import MAX_LINE_BYTES

LABELS = ["lights_on", "lights_off", "lock_door"]


def write(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


# What is accepted


def test_jsonl_with_byte_order_mark_blank_lines_crlf_and_other_fields(tmp_path: Path) -> None:
    content = (
        b"\xef\xbb\xbf"
        b'{"text": "licht an \xf0\x9f\x92\xa1", "label": "lights_on", "id": 7, "source": null}\r\n\r\n'
        b'{"text": "a", "text_pair": "b", "label": "lock_door"}\n'
        b'{"text": "c", "text_pair": null, "label": "lights_off"}'
    )
    assert read_examples(write(tmp_path, "a.jsonl", content), labels=LABELS) == [
        Example("licht an \U0001f4a1", None, "lights_on"),
        Example("a", "b", "lock_door"),
        Example("c", None, "lights_off"),
    ]


def test_csv_is_quoted_as_in_rfc_4180(tmp_path: Path) -> None:
    content = '\ufefflabel, text ,text_pair\r\nlights_on,"a, ""b""\r\nc",\r\n\r\nlights_off,d,e\r\n'
    assert read_examples(write(tmp_path, "a.CSV", content), labels=LABELS) == [
        Example('a, "b"\r\nc', None, "lights_on"),
        Example("d", "e", "lights_off"),
    ]


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = write(tmp_path, "a.tsv", 'text\tlabel\n"on, he said\tlights_on\nit\'s "off"\tlights_off\n')
    assert [example.text for example in read_examples(path, labels=LABELS)] == ['"on, he said', 'it\'s "off"']


def test_whole_numbers_are_labels_in_every_format(tmp_path: Path) -> None:
    jsonl = write(tmp_path, "a.jsonl", '{"text": "a", "label": 10}\n{"text": "b", "label": "2"}\n')
    table = write(tmp_path, "a.csv", "text,label\na,10\nb,2\n")
    assert read_examples(jsonl, labels=["2", "10"]) == read_examples(table, labels=["2", "10"])
    assert label_names(str(example.label) for example in read_examples(jsonl, labels=None)) == ["2", "10"]


def test_label_names_are_sorted_as_text_when_one_is_no_number() -> None:
    assert label_names(["b", "10", "2", "b"]) == ["10", "2", "b"]


def test_look_alikes_differ_in_blanks_case_or_unicode_form_alone() -> None:
    names = ["l0", " l0", "L0", "l\u200b0", "l 0", "l\u00a0 0", "caf\u00e9", "cafe\u0301", "STRASSE", "stra\u00dfe"]
    assert look_alikes([*names, "l1", "l_0"]) == [
        ["l0", " l0", "L0", "l\u200b0"],
        ["l 0", "l\u00a0 0"],
        ["caf\u00e9", "cafe\u0301"],
        ["STRASSE", "stra\u00dfe"],
    ]
    assert look_alikes(["light_on", "light_off"]) == []


def test_byte_order_marks_where_files_were_joined_are_no_text(tmp_path: Path) -> None:
    mark = "\ufeff"
    jsonl = read_examples(write(tmp_path, "a.jsonl", (mark + GOOD) * 2), labels=LABELS)
    rows = f"{mark}text\tlabel\n{mark}a\tlights_on\na\tlights_on\n"
    tsv = read_examples(write(tmp_path, "a.tsv", rows), labels=LABELS)
    assert jsonl == tsv == [Example("a", None, "lights_on")] * 2


def test_repeated_fields_that_are_ignored_or_deep_do_not_matter(tmp_path: Path) -> None:
    content = '{"text": "a", "label": "lights_on", "id": 1, "n": 1, "n": 2, "meta": {"text": 1, "text": 2}}'
    assert read_examples(write(tmp_path, "a.jsonl", content), labels=LABELS) == [Example("a", None, "lights_on")]


def test_prediction_needs_no_label_and_accepts_an_unknown_one(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": "b", "label": "new"}\n{"text": "c", "label": ""}\n')
    examples = read_examples(path, labels=LABELS, require_labels=False)
    assert [example.label for example in examples] == [None, "new", None]
    assert len(read_examples(write(tmp_path, "a.csv", "text\nhello\n"), labels=LABELS, require_labels=False)) == 1


# What is refused

JSONL_HINT = 'each line is one object such as {"text": "lights on", "label": "light_on"}'
GOOD = '{"text": "a", "label": "lights_on"}\n'
CSV_HINT = "the first line of a CSV file names the columns, for example text,label"
TSV_HINT = "the first line of a TSV file names the columns, for example text<tab>label"
UTF8_HINT = "convert the file to UTF-8, for example with iconv -f LATIN1 -t UTF-8"
EMPTY_HINT = "give a file with at least one example"

REFUSED = {
    "empty file": ("a.jsonl", "", "", "the file is empty", EMPTY_HINT),
    "empty csv": ("a.csv", "", "", "the file is empty", EMPTY_HINT),
    "blank lines only": ("a.jsonl", "\n \n", "", "the file holds no examples", EMPTY_HINT),
    "header only": ("a.csv", "text,label\n", "", "the file holds no examples", EMPTY_HINT),
    "unknown suffix": ("a.txt", GOOD, "", "unknown data format '.txt'", "name the file .jsonl, .csv, .tsv or .conll"),
    "broken JSON": (
        "a.jsonl",
        GOOD + '{"text": "a"',
        ":2",
        "broken JSON at column 13: Expecting ',' delimiter",
        JSONL_HINT,
    ),
    "JSON nested too deeply": (
        "a.jsonl",
        "[" * 100_000,
        ":1",
        "broken JSON: number too long or nested too deeply",
        JSONL_HINT,
    ),
    "JSON number too long": (
        "a.jsonl",
        '{"text": ' + "1" * 5000 + "}",
        ":1",
        "broken JSON: number too long or nested too deeply",
        JSONL_HINT,
    ),
    "field twice": (
        "a.jsonl",
        GOOD + '{"text": "a", "label": "lights_on", "text": "b"}',
        ":2",
        "the field 'text' is there twice",
        "leave one",
    ),
    "lines end in CR": (
        "a.jsonl",
        GOOD.replace("\n", "\r") * 2,
        ":1",
        "lines end in a carriage return alone (CR)",
        r"convert the file, for example with tr '\r' '\n'",
    ),
    "suffix that steers a terminal": (
        "a.\x1b[2J",
        GOOD,
        "",
        r"unknown data format '.\x1b[2J'",
        "name the file .jsonl, .csv, .tsv or .conll",
    ),
    "array": ("a.jsonl", GOOD + '["a", "b"]', ":2", "an array instead of an object", JSONL_HINT),
    "string": ("a.jsonl", '"a"', ":1", "a string instead of an object", JSONL_HINT),
    "null": ("a.jsonl", "null", ":1", "null instead of an object", JSONL_HINT),
    "no text": ("a.jsonl", '{"label": "lights_on"}', ":1", "no field 'text'", "each example needs one"),
    "empty text": (
        "a.jsonl",
        '{"text": " \\t", "label": "lights_on"}',
        ":1",
        "'text' is empty",
        "remove the example or give it a text",
    ),
    "text not a string": (
        "a.jsonl",
        '{"text": 3, "label": "lights_on"}',
        ":1",
        "'text' is a number, not a string",
        "put it in quotes",
    ),
    "pair not a string": (
        "a.jsonl",
        '{"text": "a", "text_pair": ["b"], "label": "lights_on"}',
        ":1",
        "'text_pair' is an array, not a string",
        "put it in quotes",
    ),
    "no label": (
        "a.jsonl",
        GOOD + '{"text": "a"}',
        ":2",
        "no label",
        "give every example a label or remove it",
    ),
    "empty label in csv": (
        "a.csv",
        "text,label\na,\n",
        ":2",
        "no label",
        "give every example a label or remove it",
    ),
    "label true": (
        "a.jsonl",
        '{"text": "a", "label": true}',
        ":1",
        "'label' is true or false, not a string or a whole number",
        "put it in quotes",
    ),
    "label 1.5": (
        "a.jsonl",
        '{"text": "a", "label": 1.5}',
        ":1",
        "'label' is a number, not a string or a whole number",
        "put it in quotes",
    ),
    "unknown label": (
        "a.jsonl",
        GOOD + '{"text": "a", "label": "ligths_on"}',
        ":2",
        "unknown label 'ligths_on'",
        "did you mean 'lights_on'? the bundle has 3 labels",
    ),
    "unlike any label": (
        "a.csv",
        "text,label\na,zzz\n",
        ":2",
        "unknown label 'zzz'",
        "the bundle has 3 labels",
    ),
    "misspelt field": (
        "a.jsonl",
        '{"text": "a", "lable": "lights_on"}',
        ":1",
        "unknown field 'lable'",
        "did you mean 'label'?",
    ),
    "misspelt pair": (
        "a.jsonl",
        '{"text": "a", "text-pair": "b", "label": "lights_on"}',
        ":1",
        "unknown field 'text-pair'",
        "did you mean 'text_pair'?",
    ),
    "misspelt column": (
        "a.csv",
        "Text,label\na,lights_on\n",
        ":1",
        "unknown field 'Text'",
        "did you mean 'text'?",
    ),
    "Latin-1": (
        "a.jsonl",
        GOOD.encode() + b'{"text": "gr\xfcn"}',
        ":2",
        "not UTF-8: byte 0xfc at position 13",
        UTF8_HINT,
    ),
    "Latin-1 csv": (
        "a.csv",
        b"text,label\na,lights_on\ngr\xfcn,lights_on\n",
        ":3",
        "not UTF-8: byte 0xfc at position 3",
        UTF8_HINT,
    ),
    "UTF-16": (
        "a.jsonl",
        GOOD.encode("utf-16"),
        ":1",
        "the file is UTF-16, not UTF-8",
        "convert it, for example with iconv -f UTF-16 -t UTF-8",
    ),
    "NUL bytes": (
        "a.csv",
        "text,label\na\0,x\n",
        ":2",
        "line holds NUL bytes",
        "is this a text file in UTF-8?",
    ),
    "NUL character": (
        "a.jsonl",
        '{"text": "a\\u0000", "label": "lights_on"}',
        ":1",
        "'text' holds a NUL character",
        "remove it",
    ),
    "half a surrogate pair": (
        "a.jsonl",
        '{"text": "\\ud800", "label": "lights_on"}',
        ":1",
        "'text' holds half of a surrogate pair",
        "write the character itself in UTF-8",
    ),
    "csv without header": (
        "a.csv",
        "turn it on,lights_on\n",
        ":1",
        "no header with a column 'text'",
        CSV_HINT,
    ),
    "csv without label": ("a.csv", "text\na\n", ":1", "no column 'label' in the header", CSV_HINT),
    "column twice": (
        "a.tsv",
        "text\tlabel\ttext\na\tb\tc\n",
        ":1",
        "column 'text' appears twice in the header",
        TSV_HINT,
    ),
    "too many fields": (
        "a.csv",
        "text,label\non, please,lights_on\n",
        ":2",
        "3 fields where the header has 2",
        "quote a field that holds a comma",
    ),
    "too few fields": (
        "a.csv",
        'text,label\n"a\nb",lights_on\nc\n',
        ":4",
        "1 field where the header has 2",
        "give every row all the fields of the header",
    ),
    "tab in text": (
        "a.tsv",
        "text\tlabel\na\tb\tlights_on\n",
        ":2",
        "3 fields where the header has 2",
        "a text cannot hold a tab",
    ),
    "quote never closed": (
        "a.csv",
        'text,label\na,lights_on\n"b,lights_on\nc,lights_on\n',
        ":3",
        "broken CSV: unexpected end of data",
        "double every quote inside a quoted field and close it",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    name, content, line, message, hint = REFUSED[case]
    path = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_examples(path, labels=LABELS)
    assert str(caught.value) == f"{one_line(str(path))}{line}: {message} ({hint})"
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="data file does not exist") as missing:
        read_examples(tmp_path / "none.jsonl", labels=None)
    assert missing.value.exit_code == 66
    with pytest.raises(DataError, match="is a directory, not a data file") as directory:
        read_examples(tmp_path, labels=None)
    assert directory.value.exit_code == 65
    with pytest.raises(EdgeFarError) as below_a_file:
        read_examples(write(tmp_path, "a.jsonl", GOOD) / "b.jsonl", labels=None)
    assert isinstance(below_a_file.value, StorageError)
    assert below_a_file.value.exit_code == 74


def test_errors_of_a_file_are_told_together(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", GOOD + "{\n" + GOOD + "[]\n" + '{"text": ""}\n')
    with pytest.raises(DataError) as caught:
        read_examples(path, labels=LABELS)
    assert caught.value.where == f"{path}:2"
    assert caught.value.message.endswith("; and 2 more, on lines 4 and 5")
    path = write(tmp_path, "b.jsonl", GOOD + "[]\n" * 1000)
    with pytest.raises(DataError, match="; and at least 4 more, on lines 3, 4, 5 and 6 "):
        read_examples(path, labels=LABELS)


def test_long_line_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD.encode() + b'{"text": "')
        file.truncate(100 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_examples(path, labels=LABELS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(caught.value) == (
        f"{path}:2: line longer than {MAX_LINE_BYTES} bytes (one example is one line; is this the right file?)"
    )
    assert peak < 8 << 20


def test_a_line_at_the_limit_is_read(tmp_path: Path) -> None:
    frame = '{"text": "%s", "label": "lights_on"}'
    text = "a" * (MAX_LINE_BYTES - len(frame % ""))
    for end in ("", "\n", "\r\n"):
        (example,) = read_examples(write(tmp_path, "a.jsonl", frame % text + end), labels=LABELS)
        assert example.text == text
        with pytest.raises(DataError, match="line longer than"):
            read_examples(write(tmp_path, "a.jsonl", frame % f"{text}a" + end), labels=LABELS)


def test_import_needs_no_torch() -> None:
    code = (
        "import sys, edge_far.texts.data, edge_far.texts.encode, edge_far.texts.batches, "
        "edge_far.device.optimizers.base, edge_far.learning_rate, edge_far.tasks.registry, edge_far.storage; "
        "print([m for m in ('torch', 'transformers', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
