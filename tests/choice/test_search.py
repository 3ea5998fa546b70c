"""Blocks above a cut compute what the whole model does; a choice and an export by it, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from edge_far.bundles.bundle import open_bundle
from edge_far.choice.frozen import frozen_outputs
from edge_far.cli import main
from edge_far.commands.workstation.choose import render
from edge_far.console import Console
from edge_far.far.above_cut import above_cut, as_mapping, logits_of
from edge_far.texts.batches import collate
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder
from tests.other_tasks import relabelled
from tests.tiny_models import WITH_LATER_ONES, make_examples, make_pooled, make_tiny, make_tokenizer

pytestmark = pytest.mark.host


@pytest.mark.parametrize("architecture", WITH_LATER_ONES)
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_above_a_cut_is_the_whole_model(architecture: str, pooling: str, tmp_path: Path) -> None:
    model = make_pooled(architecture, pooling)
    make_tokenizer(architecture).save(str(tmp_path / "tokenizer.json"))
    records = make_examples(12)
    labels = sorted({record["label"] for record in records})
    encoded = Encoder(tmp_path / "tokenizer.json", 32).encode([Example(r["text"], r["label"]) for r in records], labels)
    frozen = frozen_outputs(model, encoded, (1,), Console(quiet=True))
    rows = np.array([3, 0, 7])
    with torch.no_grad():
        whole = logits_of(model, as_mapping(collate(encoded, rows)))
        for cut in (0, 1, 2):
            found = logits_of(above_cut(model, cut), frozen.batch(encoded, rows, cut, 2, pooling))
            # States are kept in 16 bits: their rounding is 5e-4 of each.
            torch.testing.assert_close(found, whole, atol=5e-3 if cut == 1 else 1e-5, rtol=0)


def test_a_choice_and_an_export_by_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, train, picture = tmp_path / "model", tmp_path / "train.jsonl", tmp_path / "choice.png"
    make_tiny("bert").save_pretrained(model)
    make_tokenizer("bert").save(str(model / "tokenizer.json"))
    train.write_text("".join(json.dumps(example) + "\n" for example in make_examples(60)), encoding="utf-8")
    common = ["--model", str(model), "--train", str(train), "--epochs", "1", "--pooling", "mean", "--json", "-q"]
    product = {"kind": "float32", "inner": 384, "gflop_s": 0.5}
    (tmp_path / "board.json").write_text(json.dumps({"bench": {"basics": {"products": [product]}}}))
    capsys.readouterr()
    board = ["--picture", str(picture), "--board", str(tmp_path / "board.json")]
    assert main(["choose", *common, "--learning-rate", "0.001", *board]) == 0
    choice = json.loads(capsys.readouterr().out)
    assert [row["board_seconds"] for row in choice["rows"]] == [round(2 * row["gflop"], 1) for row in choice["rows"]]
    table = render(choice).splitlines()
    assert (
        table[0].endswith("state, MiB board, s >=")
        and len({len(line) for line in table[: len(choice["rows"]) + 1]}) == 1
    )
    assert choice["chosen"] in choice["rows"] and choice["chosen"]["pooling"] == "mean"
    assert {"head", "top-1", "far"} <= {row["rung"] for row in choice["rows"]}
    assert 12 <= choice["held_out"] <= 60 and picture.read_bytes().startswith(b"\x89PNG")
    auto = ["--method", "auto", "--choose-minutes", "0.2", "--no-ort", "--out", str(tmp_path / "bundle")]
    assert main(["export", *common, *auto]) == 0
    exported = json.loads(capsys.readouterr().out)
    bundle = open_bundle(tmp_path / "bundle")
    selection = bundle.manifest.selection
    stored = json.loads(bundle.path("choice.json").read_bytes())
    assert exported["choice"] == stored and selection.reason == stored["reason"]
    assert (selection.rung, selection.attention) == (stored["chosen"]["method"], stored["chosen"]["attention"])
    assert bundle.manifest.defaults.learning_rate == stored["chosen"]["learning_rate"]


@pytest.mark.parametrize(
    ("task", "score"),
    [("regress", "pearson"), ("multilabel", "micro_f1"), ("tag", "span_f1"), ("answer", "overlap_f1")],
)
def test_a_choice_of_another_task(task: str, score: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The labels say the task, the choice is by its score, and the bundle of the head alone begins fitted."""
    model, train, out = tmp_path / "model", tmp_path / "train.jsonl", tmp_path / "bundle"
    make_tiny("bert").save_pretrained(model)
    make_tokenizer("bert").save(str(model / "tokenizer.json"))
    records = make_examples(60)
    train.write_text("".join(f"{json.dumps(r)}\n" for r in records), encoding="utf-8")
    relabelled(train, train, task)
    of_tokens = task in ("tag", "answer")
    common = ["--model", str(model), "--train", str(train), "--epochs", "1", "--json", "-q"]
    common += [] if of_tokens else ["--pooling", "mean"]
    assert main(["choose", *common, "--learning-rate", "0.001", "--picture", str(tmp_path / "p.png")]) == 0
    choice = json.loads(capsys.readouterr().out)
    assert (choice["task"], choice["score"]) == (task, score) and (tmp_path / "p.png").is_file()
    assert all(-1 <= row[score] <= 1 for row in choice["rows"]) and len(choice["rows"]) >= 3
    assert main(["export", *common, "--method", "head", "--no-ort", "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["head"] == "fitted"
    manifest = open_bundle(out).manifest
    labels = {"regress": 0, "multilabel": 4, "tag": 5, "answer": 0}
    assert manifest.task.name == task and len(manifest.labels) == labels[task]
    assert manifest.model.pooling == ("none" if of_tokens else "mean")
    if of_tokens:
        assert main(["export", *common, "--pooling", "mean", "--method", "far", "--out", str(tmp_path / "b")]) == 78
    assert manifest.task.scale is None or 2 < manifest.task.scale.mean < 3
    assert not manifest.ort_training


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--method", "auto", "--attention", "heads"], "--attention"),
        (["--method", "auto", "--embeddings", "train"], "--embeddings"),
        (["--method", "far", "--choose-minutes", "3"], "--choose-minutes"),
        (["--attention-retention", "0.2"], "--attention-retention"),
    ],
)
def test_options_that_contradict_a_choice(options: list[str], where: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--model", "m", "--train", "t", "--out", "o", *options]) == 78
    assert where in capsys.readouterr().err


def test_too_few_examples_to_choose_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tiny("bert").save_pretrained(tmp_path / "model")
    make_tokenizer("bert").save(str(tmp_path / "model" / "tokenizer.json"))
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(example) + "\n" for example in make_examples(10)), encoding="utf-8")
    assert main(["choose", "--model", str(tmp_path / "model"), "--train", str(train)]) == 65
    assert "10 examples are too few to choose by" in capsys.readouterr().err
