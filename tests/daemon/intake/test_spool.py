"""The application's side of the spool: complete, durable, ordered files, or a clear error."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from edge_far.cli import main
from edge_far.daemon.intake import spool
from edge_far.errors import DataError, EdgeFarError, InputMissing, StorageError
from tests.file_systems import refuse_fsync


def test_add_leaves_one_complete_file(tmp_path: Path) -> None:
    file = spool.add("Licht an \u2713", "light_on", text_pair="b", spool=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name] and spool.is_ready(file.name)
    assert json.loads(file.read_text("utf-8")) == {
        "text": "Licht an \u2713",
        "text_pair": "b",
        "label": "light_on",
    }
    assert file.read_bytes().endswith(b"\n") and stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize(("label", "text"), [(3.5, "3.5"), (4, "4"), (["on", "é"], '["on", "é"]'), ([], "[]")])
def test_a_label_may_be_a_number_or_a_list(label: object, text: str, tmp_path: Path) -> None:
    file = spool.add("a", label, spool=tmp_path)  # type: ignore[arg-type]
    assert json.loads(file.read_text()) == {"text": "a", "label": text}


@pytest.mark.parametrize("label", [True, float("nan"), float("inf"), {"on": 1}, ["on", 1]])
def test_other_labels_are_refused(label: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'label' is not a text"):
        spool.add("a", label, spool=tmp_path)  # type: ignore[arg-type]


def test_names_that_are_not_ready() -> None:
    assert [spool.is_ready(n) for n in (".a.jsonl", "a.tmp", "a.jsonl.tmp", "a.csv", "a.jsonl")] == [
        *[False] * 4,
        True,
    ]


def test_order_survives_a_clock_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spool.add("a", "x", spool=tmp_path)
    monkeypatch.setattr(spool.time, "time_ns", lambda: 10**18)
    second = spool.add("a", "y", spool=tmp_path)
    third = spool.add("a", "z", spool=tmp_path)
    dates = [file.stat().st_mtime_ns for file in (first, second, third)]
    assert dates == sorted(dates) and len(set(dates)) == 3
    numbers = [spool.number_of(file.name) for file in (first, second, third)]
    assert numbers == dates


def test_what_is_added_comes_after_whatever_another_program_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text("{}")
    monkeypatch.setattr(spool.time, "time_ns", lambda: 10**18)
    assert spool.number_of(spool.add("a", "x", spool=tmp_path).name) == other.stat().st_ctime_ns + 1
    assert [spool.number_of(name) for name in ("7-x.jsonl", "a.jsonl", f"{7:020d}-{'a' * 12}.jsonl")] == [None, None, 7]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": "a"}, "neither an example nor a prediction"),
        ({"label": "a"}, "neither an example nor a prediction"),
        ({"text": " ", "label": "a"}, "'text' is empty"),
        ({"text": 3, "label": "a"}, "'text' is not a text"),
        ({"text": "a\0", "label": "a"}, "'text' is not a text"),
        ({"text": "\ud800", "label": "a"}, "surrogate"),
        ({"id": "1"}, "no text and no feedback"),
        ({"id": "a\x1b[2J", "text": "a"}, "'id' is not a printable text of 1 to 200 characters"),
        ({"text": "a", "label": "x" * 201}, "'label' 'x+...' is not a printable text of 1 to 200 characters"),
        ({"text": "a", "label": "x\nlearnt"}, r"'label' 'x.nlearnt' is not a printable text"),
        ({"text": "a", "id": "1", "prediction": "\x1b[2J"}, r"'prediction' '.x1b.2J' is not a printable text"),
        ({"id": "1", "label": ["fits", "x\u202e"]}, "'label' .* is not a printable text"),
        ({"id": "a" * 201, "text": "a"}, "'id' is not a printable text of 1 to 200 characters"),
        (
            {"text": "a" * (1 << 20), "label": "b"},
            "the example has 1048602 bytes .a line of the spool has",
        ),
        ({"id": "1", "feedback": "\x1b[2J"}, r"feedback '.x1b.2J' is not known"),
        ({"id": "1", "feedback": "maybe"}, "feedback 'maybe' is not known"),
    ],
)
def test_bad_arguments(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        spool.add(**fields, spool=tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_labels_that_fit(tmp_path: Path) -> None:
    """A list may be as long as it likes, and joiners belong to their scripts."""
    for label in ("x" * 200, ["x" * 150, "y" * 150], "می\u200cخواهم", 3.5, "[no list"):
        assert json.loads(spool.add("a", label, spool=tmp_path).read_text())["label"]  # type: ignore[arg-type]


def test_missing_spool(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="spool directory does not exist"):
        spool.add("a", "x", spool=tmp_path / "none")


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(spool.os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        spool.add("a", "x", spool=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_directory_that_refuses_fsync_gets_the_example_once(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_fsync(monkeypatch, number)
    assert main(["add", "--text", "a", "--label", "x", "--spool", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    assert spool.is_ready(file.name) and json.loads(file.read_bytes()) == {"text": "a", "label": "x"}
    assert "refuses fsync" in capsys.readouterr().err


def test_what_was_not_handed_over_is_not_in_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_fsync(monkeypatch, errno.EIO)
    assert main(["add", "--text", "a", "--label", "x", "--spool", str(tmp_path)]) == 74
    assert not list(tmp_path.iterdir()), "trying again must not hand it over twice"


def test_errors_are_the_tree_of_edge_far() -> None:
    with pytest.raises(EdgeFarError):
        spool.add("a", "x", spool=Path("/proc/self/none"))
