"""Numbers and lists of labels the whole way: plan, train, eval, predict, merge; figures counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from edge_far.tasks.regress import pearson
from tests.faults.processes import events, learners_of
from tests.other_tasks import BUNDLES, relabelled, spans_of

pytestmark = pytest.mark.device  # it trains: the workstation's ONNX Runtime is too old


def by_hand(task: str, said: list[dict[str, Any]], labels: list[Any]) -> dict[str, float]:
    """Return figures of what `predict` said."""
    if task == "regress":
        values, truth = np.array([answer["value"] for answer in said]), np.array(labels)
        return {"pearson": pearson(values, truth), "rmse": float(np.sqrt(np.square(values - truth).mean()))}
    if task == "tag":
        found = [(spans_of(answer["tags"]), spans_of(tags)) for answer, tags in zip(said, labels, strict=True)]
        return {"span_f1": 2 * sum(len(a & b) for a, b in found) / sum(len(a) + len(b) for a, b in found)}
    if task == "answer":
        texts = [
            (answer["answer"] or "", [gold["text"] for gold in golds])
            for answer, golds in zip(said, labels, strict=True)
        ]
        return {"exact_match": sum(text in (golds or [""]) for text, golds in texts) / len(texts)}
    named = sum(len(answer["labels"]) for answer in said)
    right = sum(len({*answer["labels"]} & {*label}) for answer, label in zip(said, labels, strict=True))
    return {"micro_f1": 2 * right / (named + sum(map(len, labels)))}


@pytest.mark.parametrize("task", BUNDLES)
def test_the_whole_way(
    task: str,
    tiny_bundle: Callable[[str], Bundle],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def document(*arguments: str | Path) -> dict[str, Any]:
        capsys.readouterr()
        assert main([*map(str, arguments), "--json", "-q"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    root, run, data = tiny_bundle(BUNDLES[task]).root, tmp_path / "run", relabelled(tiny_data, tmp_path / "t", task)
    data = data.rename(tmp_path / "t.jsonl")
    assert document("plan", root, "--train", data, "--no-probe")["fits"]
    options = ["--train", data, "--eval", data, "--epochs", "12", "--learning-rate", "0.003", "--no-probe"]
    result = document("train", root, "--out", run, *options)
    measured = events(run, "eval")
    assert len(measured) == 12 and measured[-1]["loss"] < measured[0]["loss"]
    name = {"multilabel": "micro_f1", "tag": "span_f1", "answer": "answer_f1"}.get(task)
    better = max(measured, key=lambda event: -event["loss"] if name is None else event[name])
    assert result["eval"]["step"] == better["step"]
    labels = [json.loads(line)["label"] for line in data.read_text().splitlines()]
    found = document("eval", root, "--run", run, "--data", data)
    said = document("predict", root, "--run", run, "--data", data)["predictions"]
    for name, value in by_hand(task, said, labels).items():
        assert found[name] == pytest.approx(value, abs=1e-4), name
        assert found[name] == pytest.approx(result["eval"][name], abs=0.02), "as measured while it trained"
    for threshold in ("threshold", "null_threshold"):
        assert found.get(threshold) == result["eval"].get(threshold)
    document("merge", root, "--run", run, "--out", tmp_path / "model")
    assert document("predict", tmp_path / "model", "--data", data)["predictions"] == said
    pair = ["--text-pair", "w5 w6"] if task == "answer" else []
    assert main(["predict", str(tmp_path / "model"), "w1 w2", "", *pair]) == 0
    assert main(["eval", str(root), "--data", str(data)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].endswith("w1 w2") and shown[1].split() == ["-", "''"]
    titles = {"regress": "Pearson", "multilabel": "micro-F1", "tag": "span", "answer": "answer"}
    assert shown[2].split()[0] == titles[task]
    again = tmp_path / "again"
    document("train", root, "--out", again, *options[:4], *options[4:], "--max-steps", "4")
    assert learners_of(again) != learners_of(run)


def test_labels_of_another_task_are_refused_with_their_line(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny_bundle(BUNDLES["regress"]).root
    assert main(["train", str(root), "--train", str(tiny_data), "--out", str(tmp_path / "run")]) == 65
    assert "tiny.jsonl:1: the label 'label-0' is not a number" in capsys.readouterr().err
