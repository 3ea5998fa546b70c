"""edge-far demo, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_far.cli import main
from edge_far.texts.data import read_examples


def test_writes_three_files_that_the_reader_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "data"
    assert main(["demo", "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in out.iterdir()) == ["eval.jsonl", "test.jsonl", "train.jsonl"]
    for split, count in document["examples"].items():
        assert len(read_examples(out / f"{split}.jsonl", labels=document["labels"])) == count
    assert document["intents"] == len(document["labels"]) == 16
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert main(["demo", "--out", str(tmp_path / name), "--seed", "5"]) == 0
    for split in ("train", "eval", "test"):
        assert (tmp_path / f"a/{split}.jsonl").read_bytes() == (tmp_path / f"b/{split}.jsonl").read_bytes()


def test_refuses_a_directory_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "note.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 73
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_accepts_an_empty_directory_and_prints_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "empty"
    out.mkdir()
    assert main(["demo", "--out", str(out)]) == 0
    assert "3200 sentences, 16 intents (train 2048, eval 384, test 768)" in capsys.readouterr().out


def test_missing_parent_and_bad_seed_are_one_line_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "no" / "data")]) == 74
    assert main(["demo", "--out", str(tmp_path / "x"), "--seed", "one"]) == 64
    assert capsys.readouterr().err.count("\n") == 2


def test_baseline_is_in_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_far.demo.bag_of_words.PENALTIES", (1e-4,))
    assert main(["demo", "--out", str(tmp_path / "data"), "--baseline", "--json"]) == 0
    baseline = json.loads(capsys.readouterr().out)["baseline"]
    assert 0.5 < baseline["test_accuracy"] <= 0.85
    assert set(baseline) == {"test_accuracy", "eval_accuracy", "penalty", "features"}
