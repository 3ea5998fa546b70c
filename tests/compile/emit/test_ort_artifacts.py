"""Artifacts for onnxruntime-training: loadable by its own API, small, reproducible; refusals name their cause."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import onnx_ir as ir

from edge_far.compile.emit import ort_artifacts
from edge_far.compile.emit.ort_artifacts import write_ort_artifacts
from edge_far.compile.forward.fold import fold_constants, fold_embeddings
from edge_far.compile.forward.trace import export_forward
from edge_far.console import Console
from edge_far.errors import StorageError
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.reconfigure import reconfigure, trained_parameters
from edge_far.far.select import select_learners
from edge_far.process.packages import training_package_missing
from tests.tiny_models import MAX_POSITIONS, make_tiny

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(training_package_missing() is not None, reason=str(training_package_missing())),
]

NAMES = ["checkpoint", "eval_model.onnx", "optimizer_model.onnx", "training_model.onnx"]


def fold_tiny(embeddings: str = "frozen") -> tuple[ir.Model, dict[str, np.ndarray]]:
    """Return the folded forward graph of a tiny DistilBERT, and the values of its learners."""
    model = make_tiny("distilbert")
    reconfigure(model, select_learners("random", 0.1, find_ffn_blocks(model), seed=0))
    values = {name: p.detach().numpy().copy() for name, p in trained_parameters(model, embeddings).items()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    folded = export_forward(model, "distilbert", list(values))
    fold_constants(folded)
    fold_embeddings(folded, MAX_POSITIONS)
    return folded, values


@pytest.fixture(scope="module")
def folded() -> tuple[ir.Model, dict[str, np.ndarray]]:
    return fold_tiny()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_files_are_reproducible_hold_no_paths_and_leave_the_graph_alone(folded, tmp_path: Path, capfd) -> None:
    model, values = folded
    before = ir.serde.serialize_model(model).SerializeToString(deterministic=True)
    for name in ("a", "b"):
        assert write_ort_artifacts(tmp_path / name, model, values, Console(), dropout=True)
    assert ir.serde.serialize_model(model).SerializeToString(deterministic=True) == before
    first = contents(tmp_path / "a")
    assert list(first) == NAMES
    assert contents(tmp_path / "b") == first
    assert not any(b"site-packages" in data for data in first.values())
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_files_do_not_depend_on_the_hash_seed(folded, tmp_path: Path) -> None:
    model, values = folded
    ir.save(model, tmp_path / "folded.onnx")
    np.savez(tmp_path / "values.npz", **values)
    code = (
        "import sys, numpy as np, onnx_ir as ir; from pathlib import Path\n"
        "from edge_far.compile.emit.ort_artifacts import write_ort_artifacts; from edge_far.console import Console\n"
        "root = Path(sys.argv[1])\n"
        "write_ort_artifacts(root / sys.argv[2], ir.load(root / 'folded.onnx'), dict(np.load(root / 'values.npz')),"
        " Console(), dropout=True)"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, tmp_path, seed], check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_large_constants_are_stored_once_and_only_learners_have_gradients(folded, tmp_path: Path) -> None:
    model, values = folded
    write_ort_artifacts(tmp_path / "ort", model, values, Console(quiet=True), dropout=True)
    for name in ("training_model", "eval_model"):
        graph = onnx.load(tmp_path / "ort" / f"{name}.onnx").graph
        sizes = [4 * int(np.prod(t.dims)) for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        assert max(sizes, default=0) < ort_artifacts.SHARED_BYTES
        assert [output.name for output in graph.output][:2] == ["loss", "logits"]
    training = onnx.load(tmp_path / "ort" / "training_model.onnx")
    gradients = {o.name.removesuffix("_grad.accumulation.out") for o in training.graph.output[2:]}
    assert gradients == set(values)
    versions = [onnx.load(tmp_path / "ort" / name).ir_version for name in NAMES if name.endswith(".onnx")]
    assert max(versions) <= ort_artifacts.NEWEST_IR_VERSION


@pytest.mark.parametrize("dropout", [True, False])
def test_dropout_stands_in_the_training_model_as_configured(folded, dropout: bool, tmp_path: Path) -> None:
    model, values = folded
    write_ort_artifacts(tmp_path / "ort", model, values, Console(quiet=True), dropout=dropout)
    graph = onnx.load(tmp_path / "ort" / "training_model.onnx").graph
    count = sum(node.op_type == "Dropout" for node in graph.node)
    assert count == (sum(node.op_type == "Dropout" for node in model.graph) if dropout else 0)
    assert ("dropout_factor" in [value.name for value in graph.input]) == dropout


def test_the_packages_own_module_and_optimizer_train_them(folded, tmp_path: Path) -> None:
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    model, values = folded
    out = tmp_path / "ort"
    write_ort_artifacts(out, model, values, Console(quiet=True), dropout=False)
    state = CheckpointState.load_checkpoint(out / "checkpoint")
    for name, array in values.items():
        np.testing.assert_array_equal(state.parameters[name].data, array)
    module = Module(out / "training_model.onnx", state, out / "eval_model.onnx")
    optimizer = Optimizer(out / "optimizer_model.onnx", module)
    optimizer.set_learning_rate(5e-3)
    ids = np.random.default_rng(0).integers(5, 100, (4, 16))
    assert module.input_names() == ["input_ids", "attention_mask", "labels"]
    losses = []
    for _ in range(10):
        losses.append(float(module(ids, np.ones_like(ids), np.arange(4))[0]))
        optimizer.step()
        module.lazy_reset_grad()
    assert losses[-1] < 0.5 * losses[0]


def test_trained_embeddings_are_refused_with_the_reason(tmp_path: Path, capsys) -> None:
    model, values = fold_tiny("train")
    assert not write_ort_artifacts(tmp_path / "ort", model, values, Console(), dropout=True)
    assert "wrong gradients of trained embeddings" in capsys.readouterr().err
    assert not (tmp_path / "ort").exists()


def test_a_missing_package_is_said(folded, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(ort_artifacts, "training_package_missing", lambda: "it has no wheel for this platform")
    assert not write_ort_artifacts(tmp_path / "ort", *folded, Console(), dropout=True)
    assert capsys.readouterr().err == "left out the ort/ artifacts: it has no wheel for this platform\n"


def test_an_operator_without_gradient_is_named(folded, tmp_path: Path, capsys) -> None:
    model, values = folded[0].clone(), folded[1]
    node = next(node for node in model.graph if node.op_type == "Relu")
    node.op_type = "Selu"
    assert not write_ort_artifacts(tmp_path / "ort", model, values, Console(quiet=True), dropout=True)
    message = capsys.readouterr().err
    assert f"the operator Selu (node {node.name})" in message
    assert len(message.splitlines()) == 1 and len(message) < 300
    assert not (tmp_path / "ort").exists()


def test_a_node_that_the_package_does_not_name_is_found(folded, tmp_path: Path, monkeypatch, capsys) -> None:
    """LayerNormalization with one output: the package's message names a condition of its source only."""
    model, values = folded
    monkeypatch.setattr(ort_artifacts, "_complete_outputs", lambda graph: None)
    assert not write_ort_artifacts(tmp_path / "ort", model, values, Console(quiet=True), dropout=False)
    trained = [n for n in model.graph if n.op_type == "LayerNormalization" and n.inputs[1].name in values]
    assert f"the operator LayerNormalization (node {trained[0].name})" in capsys.readouterr().err


def test_a_directory_that_cannot_be_made_is_a_storage_error(folded, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        write_ort_artifacts(tmp_path / "missing" / "ort", *folded, Console(quiet=True), dropout=True)
