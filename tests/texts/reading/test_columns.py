"""`--columns`: a file's own names of our fields, in objects and in tables."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from edge_far.cli import main
from edge_far.errors import DataError, UsageError
from edge_far.texts.data import Example, read_examples
from edge_far.texts.reading.columns import parse_columns

# The header and a row of GLUE's MNLI, QQP and STS-B, as far as they matter; made-up texts.
GLUE = {
    "mnli.tsv": (
        "index\tpromptID\tgenre\tsentence1\tsentence2\tgold_label\n0\t7\tslate\tIt \"rains.\tIt's wet.\tentailment\n",
        "text=sentence1,text_pair=sentence2,label=gold_label",
        Example('It "rains.', "It's wet.", "entailment"),
    ),
    "qqp.tsv": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n3\t1\t2\tWhy?\tWhy not?\t0\n",
        "text=question1, text_pair=question2, label=is_duplicate",
        Example("Why?", "Why not?", "0"),
    ),
    "qnli.jsonl": (
        '{"question": "Why?", "sentence": "Because.", "label": 1, "text": "not this", "idx": 3}\n',
        "text=question,text_pair=sentence",
        Example("Why?", "Because.", "1"),
    ),
    # Two names changed places.
    "swapped.csv": ("label,text\nhello,greet\n", "text=label,label=text", Example("hello", None, "greet")),
}


@pytest.mark.parametrize("name", GLUE)
def test_names_of_others(name: str, tmp_path: Path) -> None:
    content, columns, wanted = GLUE[name]
    (tmp_path / name).write_text(content)
    assert read_examples(tmp_path / name, labels=None, columns=parse_columns(columns)) == [wanted]


@pytest.mark.parametrize(
    ("name", "content"), [("a.tsv", "a\tlabel\nx\ty\n"), ("a.jsonl", '{"a": "x", "label": "y"}\n')]
)
def test_a_column_that_is_not_there(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"no field 'sentence' \(--columns says that it is 'text'\)") as caught:
        read_examples(tmp_path / name, labels=None, columns=parse_columns("text=sentence"))
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "word", ["", "text", "text=", "body=text", "text=a,text=b", "text=a,label=a", "text=a,,label=b"]
)
def test_what_is_no_map_of_columns(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        parse_columns(word)
    assert main(["eval", "bundle", "--data", "x.jsonl", "--columns", word]) == 64
    assert "--columns" in capsys.readouterr().err


# Packed files


@pytest.mark.parametrize("name", ["a.jsonl.gz", "A.JSONL.GZ", "a.jsonl"])
def test_a_packed_file_is_unpacked_whatever_its_name_is(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b'{"text": "a", "label": "b"}\n' * 3000))
    assert read_examples(tmp_path / name, labels=None) == [Example("a", None, "b")] * 3000


def test_a_file_that_was_unpacked_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_text("text,label\na,b\n")
    assert read_examples(tmp_path / "a.csv.gz", labels=None) == [Example("a", None, "b")]


@pytest.mark.parametrize(
    ("damage", "says"), [("cut", "ends too early"), ("flip", "is damaged"), ("head", "is damaged")]
)
def test_a_damaged_packed_file(damage: str, says: str, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"".join(b'{"text": "%d", "label": "b"}\n' % number for number in range(9000))))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    else:
        packed[len(packed) // 2 if damage == "flip" else 2] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    with pytest.raises(DataError) as caught:
        read_examples(tmp_path / "a.jsonl.gz", labels=None)
    assert says in str(caught.value) and "gzip -t" in str(caught.value)


def test_a_suffix_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(DataError, match="unknown data format"):
        read_examples(tmp_path / "a.gz", labels=None)


def test_a_pipe_is_said_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="is a pipe or a device, not a data file"):
        read_examples(tmp_path / "a.jsonl", labels=None)
