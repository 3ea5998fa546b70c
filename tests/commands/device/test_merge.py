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
