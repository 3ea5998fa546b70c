"""The forms of a label: what is read, what is refused, and the one text that each label becomes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from edge_far.errors import DataError
from edge_far.texts.data import Example, read_examples
from edge_far.texts.labels import Answers, NameLists, Names, Numbers, Tags
from edge_far.texts.reading.problems import RecordProblem


@pytest.mark.parametrize("written", [" on", "on\t", "\u00a0on ", "on"])
def test_blanks_around_a_name_are_no_part_of_it(written: str, tmp_path: Path) -> None:
    assert Names().read(written) == "on" and NameLists().read([written, "off"]) == '["off", "on"]'
    assert Names().read("turn  on") == "turn  on"
    for name, text in (
        ("a.csv", f"text,label\na,{written}\n"),
        ("a.jsonl", json.dumps({"text": "a", "label": written})),
    ):
        (tmp_path / name).write_text(text)
        assert read_examples(tmp_path / name, labels=["on"]) == [Example("a", None, "on")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3.0"),
        (3.5, "3.5"),
        ("3.50", "3.5"),
        (" 3. ", "3.0"),
        ("+.5", "0.5"),
        ("-1.25e-3", "-0.00125"),
        ("-0", "0.0"),
        (None, None),
        ("  ", None),
        (10**15, "1000000000000000.0"),
    ],
)
def test_a_number_becomes_its_shortest_text(value: object, text: str | None) -> None:
    assert Numbers().read(value) == text
    assert text is None or Numbers().value(text) == float(text)


@pytest.mark.parametrize(
    "value",
    [
        True,
        [3.5],
        {},
        "four",
        "1,5",
        "1_000",
        "0x10",
        "nan",
        "inf",
        "١",
        "1e400",
        "-2e15",
        2e15,
        10**400,
        math.inf,
        math.nan,
    ],
)
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(RecordProblem):
        Numbers().read(value)


def test_a_file_of_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,3.80\nb,4\n")
    assert read_examples(path, labels=Numbers()) == [Example("a", None, "3.8"), Example("b", None, "4.0")]
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": NaN}\n{"text": "c", "label": "good"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: 'label' is NaN, which is no number; and 1 more, on line 3"):
        read_examples(path, labels=Numbers())


def test_a_name_is_kept_as_it_is() -> None:
    form = Names(["on", "off"])
    assert (form.read("on"), form.read(7), form.read(" "), form.read(None)) == ("on", "7", None, None)
    assert form.unknown("on") is None and json.dumps(form.value("on")) == '"on"'
    wrong = form.unknown("onn")
    assert wrong is not None and wrong.hint == "did you mean 'on'? the bundle has 2 labels"
    for value in (True, 1.5, ["on"]):
        with pytest.raises(RecordProblem, match="not a string or a whole number"):
            form.read(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["on", "hall"], '["hall", "on"]'),
        (["on", "on", 7], '["7", "on"]'),
        ([], "[]"),
        ('["on"]', '["on"]'),
        (" [] ", "[]"),
        (None, None),
        (" ", None),
        (["é"], '["é"]'),
    ],
)
def test_a_list_becomes_its_sorted_names(value: object, text: str | None) -> None:
    form = NameLists(["on", "hall", "7", "é"])
    assert form.read(value) == text
    assert text is None or (form.value(text) == json.loads(text) and form.unknown(text) is None)


@pytest.mark.parametrize(
    "value", ["on", '"on"', "[on]", 7, True, {"on": 1}, ["on", None], ["on", " "], [["on"]], [1.5]]
)
def test_what_is_no_list_of_names_is_refused(value: object) -> None:
    with pytest.raises(RecordProblem):
        NameLists().read(value)


def test_an_unknown_name_in_a_list_is_told() -> None:
    wrong = NameLists(["on", "hall"]).unknown('["hal", "on"]')
    assert wrong is not None and wrong.message == "unknown label 'hal'" and "did you mean 'hall'?" in str(wrong.hint)


@pytest.mark.parametrize(
    ("value", "text"), [(["O", "B-a"], "O B-a"), (" O  I-b ", "O I-b"), ("", None), (None, None), ([], "")]
)
def test_tags_become_a_text(value: object, text: str | None) -> None:
    assert Tags().read(value) == text
    assert text is None or Tags().value(text) == text.split()


@pytest.mark.parametrize("value", [["B"], ["S-a"], ["B-"], [1], 3, {"a": 1}, ["B-a b"], "O X"])
def test_what_is_no_list_of_tags(value: object) -> None:
    with pytest.raises(RecordProblem, match=r"not O, nor|not a list of tags"):
        Tags().read(value)


def test_tags_fit_their_words() -> None:
    assert Tags().misfit("O B-a", "two  words", None) is None
    wrong = Tags().misfit("O B-a", "three short words", None)
    assert wrong is not None and wrong.message == "2 tags for 3 words"
    assert Tags(["O", "B-a"]).unknown("O B-a") is None
    unknown = Tags(["O", "B-a"]).unknown("O B-c")
    assert unknown is not None and unknown.message == "unknown label 'B-c'"
    assert Tags().text(["two", "words"]) == "two words" and Tags().text("as it is") == "as it is"
    for words in (["a b"], [""], [3]):
        with pytest.raises(RecordProblem, match="is empty, holds a blank, or is no string"):
            Tags().text(words)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Rome", '[[-1, "Rome"]]'),
        ([{"text": "Rome", "answer_start": 3}, {"text": "Rome", "answer_start": 3}], '[[3, "Rome"]]'),
        ({"text": ["Rome", "it"], "answer_start": [3, 0]}, '[[3, "Rome"], [0, "it"]]'),
        ([], "[]"),
        ({"text": [], "answer_start": []}, "[]"),
        ('[[3, "Rome"]]', '[[3, "Rome"]]'),
        ("[sic] Rome", '[[-1, "[sic] Rome"]]'),
        ("", None),
        (None, None),
    ],
)
def test_answers_become_a_list(value: object, text: str | None) -> None:
    assert Answers().read(value) == text
    assert text is None or Answers().read(Answers().value(text)) == text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, "'label' is a number, not a list of answers"),
        ([3], "an answer is a number, not an object"),
        ([{"text": "a", "answer_start": -2}], "answer_start is '-2'"),
        ([{"text": "a", "answer_start": True}], "answer_start is 'True'"),
        ([{"text": " "}], "an answer is empty"),
        ([{"answer_start": 3}], "'text of an answer' is null, not a string"),
        ({"text": ["a"], "answer_start": []}, "has not as many of 'answer_start'"),
    ],
)
def test_what_is_no_answer(value: object, told: str) -> None:
    with pytest.raises(RecordProblem, match=told):
        Answers().read(value)


def test_an_answer_is_in_its_text() -> None:
    assert Answers().misfit('[[3, "Rome"], [-1, "in"]]', "where?", "in Rome") is None
    wrong = [
        Answers().misfit(label, "where?", pair)
        for label, pair in (('[[2, "Rome"]]', "in Rome"), ('[[-1, "Bonn"]]', "in Rome"), ("[]", None))
    ]
    told = [found.message for found in wrong if found is not None]
    assert told == [
        "at answer_start 2 is ' Rom', not 'Rome'",
        "the answer 'Bonn' is not in 'text_pair'",
        "no 'text_pair'",
    ]
