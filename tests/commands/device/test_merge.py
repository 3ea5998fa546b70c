"""`edge-far merge`: the files it writes are what its document says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from tests.tiny_cases import Oracle


@pytest.mark.device  # it trains: the workstation's ONNX Runtime is too old
def test_merge_of_a_run_and_of_the_bundle(
    tiny_bundle: Callable[[str], Bundle],
    oracle: Callable[[str], Oracle],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, run = str(tiny_bundle("tiny-fp32").root), str(tmp_path / "run")
    options = ["--out", run, "--epochs", "5", "--learning-rate", "0.01", "-q"]
    assert main(["train", root, "--train", str(tiny_data), *options]) == 0
    logits = {}
    batch = oracle("tiny-fp32").batch(1)
    for name, more in (("bundle", []), ("run", ["--run", run])):
        capsys.readouterr()
        out = tmp_path / f"model-{name}"
        assert main(["merge", root, "--out", str(out), "--json", *more]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["model"] == str(out / "model.onnx") and document["labels"] == 5
        session = ort.InferenceSession(document["model"], providers=["CPUExecutionProvider"])
        feeds = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        logits[name] = session.run(["logits"], feeds)[0]
    np.testing.assert_allclose(logits["bundle"], oracle("tiny-fp32").logits(1), atol=1e-5)
    assert np.abs(logits["run"] - logits["bundle"]).max() > 1e-2
    assert main(["merge", root, "--out", str(tmp_path / "model-run")]) == 73


def test_merge_for_transformers_needs_neither_it_nor_torch(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That transformers loads what is written, tests/device/test_transformers_files.py shows on the workstation."""
    bundle, out = tiny_bundle("tiny-int8"), tmp_path / "model"
    options = ["--format", "transformers", "--out", str(out)]
    assert main(["merge", str(bundle.root), *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["format"], document["model"]) == ("transformers", str(out / "model.safetensors"))
    files = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in out.iterdir()} == files
    arrays = read_arrays(out / "model.safetensors")
    assert sum(array.size for array in arrays.values()) == bundle.manifest.model.parameters
    for name, learner in read_arrays(bundle.path("learners.safetensors")).items():
        if name in arrays:
            np.testing.assert_array_equal(arrays[name], learner)
    mean = str(tiny_bundle("distilbert-r10-5-mean").root)
    capsys.readouterr()
    assert main(["merge", mean, "--format", "transformers", "--out", str(tmp_path / "other")]) == 64
    assert "take --format sentence-transformers" in capsys.readouterr().err
    assert main(["merge", mean, "--format", "sentence-transformers", "--out", str(tmp_path / "other")]) == 0
    assert {path.name for path in (tmp_path / "other").iterdir()} > {"1_Pooling", "2_Dense", "modules.json"} | files


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_precision_is_measured_and_noted_in_the_release(
    precision: str,
    tiny_bundle: Callable[[str], Bundle],
    tiny_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, out = str(tiny_bundle("bert-head-5").root), tmp_path / "model"
    options = ["--precision", precision, "--eval", str(tiny_data), "--out", str(out), "--threads", "1"]
    assert main(["merge", root, *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["precision"] == precision
    measured = document["measured"]
    assert json.loads((out / "release.json").read_bytes())["measured"] == measured
    assert (measured["examples"], measured["threads"], bool(measured["cpu"])) == (12, 1, True)
    assert measured.keys() == {"examples", "cpu", "threads", "fp32", precision}
    assert main(["eval", root, "--data", str(tiny_data), "--json"]) == 0
    accuracy = json.loads(capsys.readouterr().out)["accuracy"]
    assert measured["fp32"]["accuracy"] == accuracy
    assert main(["predict", str(out), "--data", str(tiny_data), "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["predictions"]
    truth = [json.loads(line)["label"] for line in tiny_data.read_text().splitlines()]
    right = sum(answer["label"] == label for answer, label in zip(answers, truth, strict=True))
    assert measured[precision]["accuracy"] == pytest.approx(right / len(truth), abs=1e-4)
    assert all(measured[name]["milliseconds"] > 0 for name in ("fp32", precision))
    size = sum((out / name).stat().st_size for name in ("model.onnx", "weights.bin"))
    assert measured[precision]["mib"] == round(size / 2**20, 1)


def test_the_profile_says_the_precision_unless_the_option_does(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("memory: {budget_mib: 300}\nadaptation: {release_precision: int8}\n")
    root = str(tiny_bundle("tiny-fp32").root)
    for number, (options, precision) in enumerate(
        [
            ([], "fp32"),
            (["--profile", str(profile)], "int8"),
            (["--profile", str(profile), "--precision", "fp16"], "fp16"),
        ]
    ):
        out = tmp_path / str(number)
        assert main(["merge", root, "--out", str(out), *options, "-q"]) == 0
        assert json.loads((out / "release.json").read_bytes())["precision"] == precision
    capsys.readouterr()
    for options in (["--precision", "int8"], ["--eval", "x.jsonl"]):
        out = tmp_path / "other"
        assert main(["merge", root, "--out", str(out), "--format", "transformers", *options]) == 64
        assert f"{options[0]} is for ONNX models" in capsys.readouterr().err and not out.exists()


def test_options_that_only_a_measurement_reads_are_refused_without_one(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = str(tiny_bundle("bert-head-5").root), tmp_path / "model"
    for words in (["--threads", "2"], ["--columns", "text=sentence"]):
        assert main(["merge", root, "--out", str(out), *words]) == 64
        assert f"{words[0]}: does nothing without --eval (leave {words[0]} out" in capsys.readouterr().err
    assert not out.exists()
    assert main(["merge", root, "--out", str(out), "--precision", "int8"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{out / 'model.onnx'}: ") and " MiB in int8, 5 labels; weights: " in line
