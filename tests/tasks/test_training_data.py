"""What is to be learned of a file: inferred from its labels, or named; wrong mixtures are refused with their line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_far.bundles.manifest import TASK_NAMES
from edge_far.errors import ConfigError, DataError
from edge_far.tasks.registry import TASKS
from edge_far.tasks.training_data import read_training_data
from edge_far.texts.data import Example
from edge_far.texts.reading.columns import Columns


def write(path: Path, labels: Sequence[object]) -> Path:
    """Write a JSONL file of these labels; or a table, whose cells are texts."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": f"t{n}", "label": v}) + "\n" for n, v in enumerate(labels)))
    else:
        path.write_text("text\tlabel\n" + "".join(f"t{n}\t{label}\n" for n, label in enumerate(labels)))
    return path


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["on", "off"], "classify"),
        ([0, 1, 2], "classify"),
        (["1", "2"], "classify"),
        (["1.5", "on"], "classify"),
        ([1, 2.5], "regress"),
        (["1", "2.5"], "regress"),
        ([3.0, 0.5, "4"], "regress"),
        ([["on"], [], ["on", "hall"]], "multilabel"),
        ([["O"], ["B-room"]], "tag"),
    ],
)
def test_labels_say_what_is_learned(labels: list[object], task: str, tmp_path: Path) -> None:
    found = read_training_data(write(tmp_path / "a.jsonl", labels))
    assert found.task.info.name == task and (found.why is None) == (task == "classify")
    assert len(found.examples) == len(labels)


def test_words_and_questions_say_what_is_learned_too(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"tokens": ["lamp", "on"], "tags": ["B-device", "O"]}) + "\n")
    found = read_training_data(path, columns=Columns({"text": "tokens", "label": "tags"}))
    assert found.task.labels == ("O", "B-device", "I-device")
    assert found.examples == [Example("lamp on", None, "B-device O")]
    path.write_text(json.dumps({"q": "where?", "c": "in Rome", "a": {"text": ["Rome"], "answer_start": [3]}}) + "\n")
    found = read_training_data(path, columns=Columns({"text": "q", "text_pair": "c", "label": "a"}))
    assert found.task.info.name == "answer" and found.examples == [Example("where?", "in Rome", '[[3, "Rome"]]')]


def test_cells_of_a_table_are_numbers_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", ["5.000", "3.80", "2"])
    assert read_training_data(path).task.info.name == "regress"
    assert read_training_data(path, "classify").task.labels == ("2", "3.80", "5.000")
    lists = write(tmp_path / "c.tsv", ['["on"]', "[]"])
    assert read_training_data(lists).task.labels == ("on",)
    whole = write(tmp_path / "b.tsv", ["5", "3", "2"])
    assert read_training_data(whole).task.labels == ("2", "3", "5")
    assert read_training_data(whole, "regress").task.info.scale is not None


def test_columns_of_other_names_say_the_task_too(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("index\tsentence1\tsentence2\tscore\n0\ta\tb\t5.000\n1\tc\td\t3.80\n")
    names = Columns({"text": "sentence1", "text_pair": "sentence2", "label": "score"})
    found = read_training_data(tmp_path / "a.tsv", columns=names)
    assert found.task.info.name == "regress" and found.examples[1] == Example("c", "d", "3.8")


@pytest.mark.parametrize(
    ("labels", "named", "told"),
    [
        ([1.5, 2, "on"], None, "a.jsonl:3: the label 'on' is not a number"),
        ([1.5, 2, "on"], "classify", "a.jsonl:1: 'label' is a number, not a string or a whole number"),
        ([1.0, 2.0], None, "a.jsonl:1: 'label' is a number, not a string or a whole number; and 1 more"),
        (["a", True], None, "a.jsonl:2: 'label' is true or false"),
        (["on", "off"], "regress", "a.jsonl:1: the label 'on' is not a number"),
        (["on", ["off"]], None, "a.jsonl:1: the label 'on' is not a list"),
        ([["on"], 1.5], None, "a.jsonl:2: 'label' is a number, not a list of strings"),
        (["on", ["off"]], "classify", "a.jsonl:2: 'label' is an array, not a string"),
        ([1.5, float("inf")], None, "a.jsonl:2: 'label' is beyond 1e[+]15"),
    ],
)
def test_a_wrong_mixture_is_refused_with_its_line(
    labels: list[object], named: str | None, told: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=told):
        read_training_data(write(tmp_path / "a.jsonl", labels), named)


def test_nothing_to_learn_is_said_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl: the training data has fewer than two labels [(]add examples"):
        read_training_data(write(tmp_path / "a.jsonl", ["on", "on"]))
    with pytest.raises(DataError, match=r"a\.jsonl: all labels of the training data are the same number"):
        read_training_data(write(tmp_path / "a.jsonl", [0.5, 0.5]))
    with pytest.raises(DataError, match=r"a\.jsonl: no example of the training data has a label"):
        read_training_data(write(tmp_path / "a.jsonl", [[], []]))
    reserved = read_training_data(write(tmp_path / "a.jsonl", ["on", "off"]), reserved=["reserved-0"])
    assert reserved.task.labels == ("off", "on", "reserved-0")
    with pytest.raises(ConfigError, match="'reserved-3' is called like a place for labels to come"):
        read_training_data(write(tmp_path / "a.jsonl", ["on", "reserved-3"]))


def test_every_task_can_be_named() -> None:
    assert sorted(TASK_NAMES) == sorted(TASKS)
