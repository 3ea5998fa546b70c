"""SQuAD's JSON: questions of paragraphs with their answers, those without, and what is no such file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_far.errors import DataError
from edge_far.texts.data import Example, read_examples
from edge_far.texts.labels import Answers


def document(*questions: dict[str, Any]) -> dict[str, Any]:
    return {"version": "2.0", "data": [{"title": "t", "paragraphs": [{"context": "in Rome", "qas": [*questions]}]}]}


ASKED = {"id": "1", "question": "where?", "answers": [{"text": "Rome", "answer_start": 3}]}
NOBODY = {"id": "2", "question": "who?", "is_impossible": True, "answers": [], "plausible_answers": [{"text": "in"}]}


def test_questions(tmp_path: Path) -> None:
    # One line may be longer than any other file's.
    (tmp_path / "a.json").write_text(json.dumps(document(ASKED, NOBODY) | {"filler": "x" * (1 << 21)}))
    expected = [Example("where?", "in Rome", '[[3, "Rome"]]'), Example("who?", "in Rome", "[]")]
    assert read_examples(tmp_path / "a.json", labels=Answers()) == expected
    (tmp_path / "b.json").write_text(json.dumps(document(ASKED, NOBODY), indent=1))
    assert read_examples(tmp_path / "b.json", labels=Answers()) == expected
    del (asked := dict(ASKED))["answers"]
    (tmp_path / "c.json").write_text(json.dumps(document(asked)))
    assert read_examples(tmp_path / "c.json", labels=Answers(), require_labels=False)[0].label is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            json.dumps(document({"question": "a", "answers": [{"text": "Bonn", "answer_start": 3}]})),
            ":1: at answer_start 3",
        ),
        (json.dumps(document(ASKED, {"question": "a"})), ":2: no label"),
        ('{"data": 3}', ":1: no list 'data' where SQuAD's JSON has one"),
        ('{"data": [{"paragraphs": [{"qas": [7]}]}]}', "a question is no object"),
        ('[{"text": "a"}]', "no list 'data'"),
        ('{"data": [', ":1: broken JSON"),
        ("[" * 100_000, ":1: broken JSON"),
        ("", "the file is empty|broken JSON"),
    ],
)
def test_wrong_files(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=told):
        read_examples(tmp_path / "a.json", labels=Answers())
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="UTF-16"):
        read_examples(tmp_path / "a.json", labels=Answers())
