"""CoNLL columns: texts between blank lines, the tag in the last column, what is passed over and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from edge_far.errors import DataError
from edge_far.texts.data import Example, read_examples
from edge_far.texts.labels import Tags

FILE = """-DOCSTART- -X- -X- O

# sentence 1
New NNP B-NP B-city
York NNP I-NP I-city
rains VBZ B-VP O

\tlamp\tO

"""


def test_texts_and_tags(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(FILE)
    expected = [Example("New York rains", None, "B-city I-city O"), Example("lamp", None, "O")]
    assert read_examples(tmp_path / "a.conll", labels=Tags()) == expected
    (tmp_path / "b.bio.gz").write_bytes(gzip.compress(FILE.rstrip("\n").encode()))
    assert read_examples(tmp_path / "b.bio.gz", labels=Tags()) == expected


def test_words_without_tags(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("New\nYork\n")
    assert read_examples(tmp_path / "a.conll", labels=Tags(), require_labels=False) == [Example("New York")]
    with pytest.raises(DataError, match=r"a\.conll:1: no label"):
        read_examples(tmp_path / "a.conll", labels=Tags())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("New B-city\n\nYork city\n", ":3: the tag 'city' is not O, nor B- or I- and a name"),
        ("New B-city\nYork\n", ":1: 1 tags for 2 words"),
        ("New B-city\n\n\xa0\n", None),
        ("\n\n", "the file holds no examples"),
        ("", "the file is empty"),
    ],
)
def test_wrong_files(text: str, told: str | None, tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(text)
    if told is None:
        assert len(read_examples(tmp_path / "a.conll", labels=Tags())) == 1
        return
    with pytest.raises(DataError, match=told):
        read_examples(tmp_path / "a.conll", labels=Tags())


def test_another_task_s_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(FILE)
    with pytest.raises(DataError, match=":4: 'text' is an array, not a string"):
        read_examples(tmp_path / "a.conll", labels=["on"])
