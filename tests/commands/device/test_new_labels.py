"""`train --new-labels` and `--labels`: new labels take free places, and are known to eval, predict and merge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from tests.places import LABELS, with_places

pytestmark = pytest.mark.device

NEW = {"label-3": "shades", "label-4": "blinds"}
NAMES = ["label-0", "label-1", "label-2", "blinds", "shades"]  # by name


@pytest.fixture(name="places")
def _places(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> Path:
    return with_places(tiny_bundle("tiny-fp32").root, tmp_path / "bundle").root


@pytest.fixture(name="data")
def _data(tiny_data: Path, tmp_path: Path) -> Path:
    records = [json.loads(line) for line in tiny_data.read_text().splitlines()]
    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps(r | {"label": NEW.get(r["label"], r["label"])}) + "\n" for r in records))
    return path


def test_new_labels_take_places(places: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def document(*arguments: str | Path) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json", "-q"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    run, options = tmp_path / "run", ["--learning-rate", "0.003", "--no-probe"]
    assert main(["train", str(places), "--train", str(data), "--out", str(run)]) == 65
    assert "unknown label 'shades'" in capsys.readouterr().err
    document("train", places, "--train", data, "--eval", data, "--out", run, "--new-labels", "--epochs", "20", *options)
    record = json.loads((run / "run.json").read_text())
    assert record["labels"] == NAMES and sorted(record["new_labels"]) == ["blinds", "shades"]
    measured = document("eval", places, "--run", run, "--data", data)
    assert measured["classes"]["blinds"]["correct"] > 0 and measured["accuracy"] > 0.5
    said = document("predict", places, "--run", run, "--data", data, "--top", "9")["predictions"]
    assert {answer["label"] for answer in said} & {"blinds", "shades"} and len(said[0]["top"]) == 5
    document("merge", places, "--run", run, "--out", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "labels.json").read_text()) == NAMES
    assert json.loads((tmp_path / "model" / "release.json").read_text())["labels"] == NAMES
    assert document("predict", tmp_path / "model", "--data", data, "--top", "9")["predictions"] == said
    again = document(
        "train", places, "--train", data, "--out", run, "--resume", "--eval", data, *options, "--epochs", "20"
    )
    assert again["eval"]["accuracy"] == measured["accuracy"]
    # From its learners on, with its labels: nothing is new to them.
    (run / "labels.json").write_text(json.dumps(NAMES))
    begin = ["--learners", run / "learners.safetensors", "--labels", run / "labels.json", "--epochs", "1"]
    document("train", places, "--train", data, "--out", tmp_path / "on", *begin, *options)
    assert json.loads((tmp_path / "on" / "run.json").read_text())["new_labels"] == []


def test_a_free_place_is_never_said(places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(places), "w1 w2", "w3", "w4 w9", "--top", "9", "--json", "-q"]) == 0
    for answer in json.loads(capsys.readouterr().out)["predictions"]:
        assert sorted(each["label"] for each in answer["top"]) == LABELS[:3]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["label-0", "label-1", "label-2", "blinds"], "does not fit the bundle's labels"),
        (["label-1", "label-0", "label-2", "blinds", "reserved-1"], "does not fit the bundle's labels"),
        ({"label-0": 1}, "is no list of labels"),
    ],
)
def test_labels_that_do_not_fit(
    labels: Any, told: str, places: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "l.json").write_text(json.dumps(labels))
    options = ["--train", str(data), "--out", str(tmp_path / "run"), "--labels", str(tmp_path / "l.json")]
    assert main(["train", str(places), *options]) == 78
    assert told in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_more_new_labels_than_places(places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "many.jsonl"
    data.write_text("".join(json.dumps({"text": f"w{n}", "label": f"new-{n}"}) + "\n" for n in range(3)))
    options = ["--train", str(data), "--out", str(tmp_path / "run"), "--new-labels"]
    assert main(["train", str(places), *options]) == 78
    assert "3 new labels, and the bundle has 2 free places: 'new-0', 'new-1', 'new-2' (" in capsys.readouterr().err
    data.write_text("".join(json.dumps({"text": f"w{n}", "label": f"new-{n:02}"}) + "\n" for n in range(14)))
    assert main(["train", str(places), *options]) == 78
    assert "'new-09' and 4 more" in capsys.readouterr().err
    data.write_text('{"text": "w1", "label": "reserved-7"}\n')
    assert main(["train", str(places), *options]) == 65
    assert "'reserved-7' is the name of a free place" in capsys.readouterr().err
