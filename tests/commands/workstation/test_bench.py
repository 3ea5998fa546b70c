"""edge-far bench, end to end: on the workstation all engines, on the device a bundle's own row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bench import environments
from edge_far.bench.environments import find_environments
from edge_far.bundles.bundle import Bundle
from edge_far.cli import main

QUICK = ["--batch", "2", "--length", "16", "--threads", "1", "--steps", "2", "--warmup", "0", "--rounds", "1"]
needs_device = pytest.mark.skipif(
    find_environments(None)["edge-far"].python is None, reason="no environment with the stock onnxruntime"
)


@needs_device
def test_a_bundle_is_measured_and_torch_named_as_missing(
    tiny_bundle: Callable[[str], Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle("tiny-int8")
    engines = ["--engines", "torch", "edge-far"]
    assert (
        main(["bench", "--model", str(bundle.root), *QUICK, *engines, "--dropout", "--optimizer", "lion", "--json"])
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rows"]
    assert row["optimizer"] == "lion" and row["optimizer_seconds"] > 0
    assert (row["engine"], row["method"], row["precision"]) == ("edge-far", "far-10", "int8")
    assert row["trained_parameters"] == bundle.manifest.trained_parameters
    assert row["step_seconds"] > 0 and 20 < row["peak_rss_mib"] < 300
    assert row["runtime"].startswith("onnxruntime 1.") and row["flops"] > 0
    assert [row["row"] for row in document["left_out"]] == ["torch far-10 sdpa", "torch far-10 eager"]
    assert all(row["reason"] for row in document["left_out"])


@needs_device
def test_a_bundle_with_frozen_blocks_has_a_step_and_a_fill(
    tiny_bundle: Callable[[str], Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle("distilbert-top1-5-heads")
    assert main(["bench", "--model", str(bundle.root), *QUICK, "--micro-batch", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    step, fill = document["rows"]
    assert [row["method"] for row in (step, fill)] == ["top-1-heads"] * 2 and not document["left_out"]
    assert (step["phase"], fill["phase"]) == ("step", "fill")
    assert step["trained_parameters"] == bundle.manifest.trained_parameters and fill["trained_parameters"] == 0
    assert step["loss"] > 0 and fill["loss"] is None and fill["optimizer_seconds"] == 0
    for row in (step, fill):
        assert row["step_seconds"] > 0 and row["flops"] > 0
        assert row["predicted_peak_mib"] > 0 and 20 < row["peak_rss_mib"] < 300


@needs_device
def test_one_row_of_a_bundle_can_be_chosen(
    tiny_bundle: Callable[[str], Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(tiny_bundle("bert-head-5").root)]
    assert main(["bench", *model, *QUICK, "--only", "fill", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["method"], row["phase"]) == ("head", "fill")
    assert main(["bench", *model, *QUICK, "--only", "top-1"]) == 64
    assert "edge-far head fp32 fill" in capsys.readouterr().err


def test_without_torch_nothing_can_be_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "_missing", lambda *packages: "torch is not installed")
    assert main(["bench", "--model", "tiny", *QUICK, "--engines", "torch", "edge-far", "--json"]) == 69
    message = json.loads(capsys.readouterr().out)["error"]["message"]
    assert "torch full sdpa: torch is not installed" in message and "edge-far far-10 int8" in message


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--length", "12"], 64, "multiple of 8"),
        (["--batch", "0"], 64, "--batch"),
        (["--rounds", "0"], 64, "--rounds"),
        (["--seed", str(2**63)], 64, "--seed"),
        (["--methods", "half"], 64, "unknown method"),
        (["--model", "tiny", "--methods", "head", "--engines", "torch"], 64, "only edge-far has head"),
        (["--model", "tiny", "--only", "nothing"], 64, "no row is called 'nothing'"),
        (["--retention", "1"], 78, "--retention"),
        (["--model", "none"], 66, "no such geometry"),
        (["--device-python", "none"], 66, "no such interpreter"),
    ],
)
def test_bad_arguments_are_refused_at_once(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == code
    assert said in capsys.readouterr().err


def test_results_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{}")
    assert main(["bench", "--out", str(tmp_path)]) == 73


@pytest.mark.host
@pytest.mark.slow
@needs_device
def test_every_engine_does_the_same_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        **{"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"], "vocab_size": 100},
        **{"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64},
    }
    model, out = tmp_path / "small", tmp_path / "out"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config))
    command = ["bench", "--model", str(model), *QUICK, "--micro-batch", "1", "--methods", "far", "top-1-heads"]
    assert main([*command, "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "bench.json").read_bytes())
    assert {"model", "machine", "rows", "ratios", "left_out", "threads", "batch", "length"} <= document.keys()
    *others, rung, fill = document["rows"]
    assert (rung["method"], rung["phase"], rung["precision"]) == ("top-1-heads", "step", "int8")
    assert (fill["method"], fill["phase"], fill["trained_parameters"]) == ("top-1-heads", "fill", 0)
    rows = {(row["engine"], row["attention"] or row["precision"]): row for row in others}
    found = set(rows) - {("ort-training", "fp32")}
    assert found == {
        ("torch", "sdpa"),
        ("torch", "eager"),
        *(("edge-far", p) for p in ("int8", "fp32-compact", "fp32")),
    }
    losses = [row["loss"] for row in rows.values() if row["precision"] == "fp32"]
    assert max(losses) - min(losses) < 2e-5
    assert len({row["trained_parameters"] for row in rows.values()}) == 1
    for row in rows.values():
        assert row["step_seconds"] > 0 and row["peak_rss_mib"] > 20
        assert (row["bytes_moved"] is None) == (row["engine"] != "edge-far")
        assert (row["flops"] is None) == (row["engine"] == "ort-training")
    assert rows["torch", "sdpa"]["flops"] == rows["torch", "eager"]["flops"]
    # The same texts and weights: a batch from the cache has nearly the loss that it has in one piece.
    assert rung["loss"] == pytest.approx(rows["edge-far", "int8"]["loss"], abs=0.01)
    assert rung["flops"] < rows["edge-far", "int8"]["flops"] < rows["torch", "sdpa"]["flops"]
    ratios = document["ratios"]
    best = min(rows["torch", attention]["peak_rss_mib"] for attention in ("sdpa", "eager"))
    assert ratios["peak_torch_far_over_edge_far_int8"] == pytest.approx(
        best / rows["edge-far", "int8"]["peak_rss_mib"], rel=1e-3
    )
    assert ratios["flops_edge_far_far_10_over_edge_far_top_1_heads_int8"] > 1
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    assert "| edge-far | far-10 | int8 |" in (out / "bench.md").read_text()
