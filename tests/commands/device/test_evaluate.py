"""`edge-far eval` against the metrics counted by hand from `edge-far predict`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main


@pytest.mark.device  # it trains: the workstation's ONNX Runtime is too old
def test_metrics_are_those_of_the_predictions(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = str(tiny_bundle("tiny-int8").root), str(tmp_path / "run")
    assert main(["train", root, "--train", str(tiny_data), "--out", run, "--epochs", "8", "-q"]) == 0
    for more in ([], ["--run", run]):
        capsys.readouterr()
        assert main(["eval", root, "--data", str(tiny_data), "--json", *more]) == 0
        document = json.loads(capsys.readouterr().out)
        assert main(["predict", root, "--data", str(tiny_data), "--top", "5", "--json", *more]) == 0
        predictions = json.loads(capsys.readouterr().out)["predictions"]
        truth = [json.loads(line)["label"] for line in tiny_data.read_text().splitlines()]
        right = sum(found["label"] == label for found, label in zip(predictions, truth, strict=True))
        assert document["examples"] == 12 and document["accuracy"] == pytest.approx(right / 12, abs=1e-6)
        odds = [{top["label"]: top["probability"] for top in found["top"]} for found in predictions]
        loss = -sum(math.log(found[label]) for found, label in zip(odds, truth, strict=True)) / 12
        assert document["loss"] == pytest.approx(loss, abs=1e-4)
        assert sum(label["support"] for label in document["classes"].values()) == 12
        assert sum(label["correct"] for label in document["classes"].values()) == right


def test_text_for_people(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(tiny_bundle("tiny-fp32").root), "--data", str(tiny_data)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["accuracy", "macro-F1", "Matthews", "loss", "weakest"]
