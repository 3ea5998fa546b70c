"""The ort-training backend against torch autograd, the portable backend, and its own seeds."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import torch

from edge_far.device.engine import ort_training
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.ort_training import OrtTrainingBackend, available
from edge_far.errors import BundleError, Unavailable
from edge_far.process.packages import training_package_missing
from edge_far.texts.batches import Batch
from tests import tiny_models
from tests.stock_runtime import run_on_stock_runtime
from tests.tiny_models import (
    ARCHITECTURES,
    TinyBundle,
    gradient_error,
    make_batch,
    make_tiny_bundle,
    torch_logits,
    torch_loss,
)

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(training_package_missing() is not None, reason=str(training_package_missing())),
]

TOLERANCE = 1e-5
SCALE = 0.25


# ELECTRA's graph has nothing that BERT's has not, and ALBERT's is refused: one parameter that many operators read.
@pytest.fixture(scope="module", params=[name for name in ARCHITECTURES if name != "electra"])
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_tiny_bundle(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def with_dropout(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_tiny_bundle(tmp_path_factory.mktemp("dropout"), "distilbert", dropout=True)


def torch_gradients(compiled: TinyBundle, *batches, scale: float = SCALE) -> tuple[float, dict[str, np.ndarray]]:
    """Return scale * (sum of all losses) and its gradients, by torch."""
    compiled.model.zero_grad()
    loss = scale * sum(torch_loss(compiled.model, batch) for batch in batches)
    loss.backward()
    return loss.item(), {name: parameter.grad.numpy().copy() for name, parameter in compiled.trained.items()}


def batches_for(compiled: TinyBundle) -> list:
    types = compiled.bundle.manifest.portable.token_types
    return [
        make_batch(rows=3, length=16, token_types=types, seed=1),
        make_batch(rows=2, length=24, token_types=types, seed=2),
        make_batch(rows=1, length=8, seed=3),
    ]


def test_gradients_and_loss_equal_torch_in_every_shape(compiled: TinyBundle) -> None:
    backend = OrtTrainingBackend(compiled.bundle, compiled.arrays(), 1)
    for batch in batches_for(compiled):
        expected_loss, expected = torch_gradients(compiled, batch)
        loss = backend.accumulate(batch, SCALE, None)
        assert loss == pytest.approx(expected_loss, rel=TOLERANCE)
        assert backend.gradients.keys() == expected.keys()
        assert gradient_error(backend.gradients, expected) <= TOLERANCE
        for gradient in backend.gradients.values():
            gradient.fill(0.0)


def test_micro_batches_add_up_and_parameters_are_read_at_every_step(compiled: TinyBundle) -> None:
    parameters = compiled.arrays()
    backend = OrtTrainingBackend(compiled.bundle, parameters, 1)
    held = dict(backend.gradients)
    batches = batches_for(compiled)
    backend.accumulate(batches[0], SCALE, None)
    random = np.random.default_rng(5)
    with torch.no_grad():
        for name, parameter in compiled.trained.items():
            change = random.standard_normal(parameters[name].shape).astype(np.float32) * np.float32(0.01)
            parameters[name] += change
            parameter += torch.tensor(change)
    for gradient in backend.gradients.values():
        gradient.fill(0.0)
    losses = [backend.accumulate(batch, SCALE, None) for batch in batches]
    expected_loss, expected = torch_gradients(compiled, *batches)
    assert sum(losses) == pytest.approx(expected_loss, rel=TOLERANCE)
    assert gradient_error(backend.gradients, expected) <= TOLERANCE
    assert all(backend.gradients[name] is array for name, array in held.items())


def test_the_gelu_by_a_hyperbolic_tangent_has_its_own_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tiny_models.tiny_config
    monkeypatch.setattr(tiny_models, "tiny_config", lambda *names, **keys: plain(*names, **keys, hidden_act="gelu_new"))
    test_gradients_and_loss_equal_torch_in_every_shape(make_tiny_bundle(tmp_path, "bert"))


def test_logits_equal_torch_and_need_no_labels(compiled: TinyBundle) -> None:
    backend = OrtTrainingBackend(compiled.bundle, compiled.arrays(), 1)
    for batch in batches_for(compiled):
        with torch.no_grad():
            expected = torch_logits(compiled.model, batch).numpy()
        unlabelled = dataclasses.replace(batch, labels=np.full_like(batch.labels, -1))
        np.testing.assert_allclose(backend.logits(unlabelled), expected, rtol=TOLERANCE, atol=1e-5)


def test_dropout_follows_its_key_and_nothing_else(with_dropout: TinyBundle) -> None:
    batch = make_batch(rows=4)

    def step(key: DropoutKey | None, *, dropout: bool = True, warm: int = 0) -> tuple[float, dict[str, np.ndarray]]:
        backend = OrtTrainingBackend(with_dropout.bundle, with_dropout.arrays(), 1, dropout=dropout)
        for number in range(warm):
            backend.accumulate(batch, 1.0, DropoutKey(9, number, 0))
        for gradient in backend.gradients.values():
            gradient.fill(0.0)
        return backend.accumulate(batch, 1.0, key), backend.gradients

    key = DropoutKey(seed=1, step=2, micro_batch=3)
    loss, gradients = step(key)
    again, same = step(key, warm=2)
    assert again == loss
    assert all(np.array_equal(gradients[name], same[name]) for name in gradients)
    others = {step(other)[0] for other in (DropoutKey(2, 2, 3), DropoutKey(1, 3, 3), DropoutKey(1, 2, 4))}
    assert len(others | {loss}) == 4

    expected_loss, expected = torch_gradients(with_dropout, batch, scale=1.0)
    for without, found in (step(None), step(key, dropout=False)):
        assert without == pytest.approx(expected_loss, rel=TOLERANCE)
        assert gradient_error(found, expected) <= TOLERANCE


def test_dropout_scales_what_it_keeps(with_dropout: TinyBundle) -> None:
    """Over many masks the mean loss stays near the loss without dropout, and the masks do change it."""
    backend = OrtTrainingBackend(with_dropout.bundle, with_dropout.arrays(), 1)
    batch = make_batch(rows=8)
    plain = backend.accumulate(batch, 1 / 8, None)
    losses = [backend.accumulate(batch, 1 / 8, DropoutKey(0, step, 0)) for step in range(100)]
    assert np.std(losses) > 0.01
    assert abs(np.mean(losses) - plain) < 0.25 * plain


def test_equals_the_portable_step(compiled: TinyBundle) -> None:
    """step.onnx runs on the stock runtime, in the device's environment: this one's does not know Attention."""
    learners = compiled.arrays()
    step = onnx.load(compiled.bundle.path("portable/step.onnx")).SerializeToString()
    accumulators = {f"acc.{name}": np.zeros_like(array) for name, array in learners.items()}
    backend = OrtTrainingBackend(compiled.bundle, {name: array.copy() for name, array in learners.items()}, 1)
    for batch in batches_for(compiled):
        fields = {name: getattr(batch, name) for name in Batch.__slots__ if getattr(batch, name) is not None}
        if compiled.bundle.manifest.portable.token_types:
            fields.setdefault("token_type_ids", np.zeros_like(batch.input_ids))
        feeds = fields | learners | accumulators | {"loss_scale": np.array(SCALE, np.float32)}
        portable = run_on_stock_runtime(step, feeds)
        for gradient in backend.gradients.values():
            gradient[...] = 0
        assert backend.accumulate(batch, SCALE, None) == pytest.approx(float(portable["loss"]), rel=TOLERANCE)
        gradients = {name: portable[f"grad.{name}"] for name in learners}
        assert gradient_error(backend.gradients, gradients) <= TOLERANCE


def test_says_why_it_cannot_run(compiled: TinyBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert available(compiled.bundle) is None
    manifest = dataclasses.replace(compiled.bundle.manifest, ort_training=False)
    without = dataclasses.replace(compiled.bundle, manifest=manifest)
    assert available(without) == "the bundle was exported without the ort/ artifacts"
    with pytest.raises(Unavailable, match=r"without the ort/ artifacts.*--backend portable"):
        OrtTrainingBackend(without, compiled.arrays(), 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "onnxruntime-training is not installed" in str(available(compiled.bundle))


def test_wrong_parameters_and_damaged_graphs_are_errors_of_ours(
    compiled: TinyBundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parameters = compiled.arrays()
    first = next(iter(parameters))
    with pytest.raises(BundleError, match=first):
        OrtTrainingBackend(compiled.bundle, {**parameters, first: parameters[first][:1]}, 1)
    (tmp_path / "ort").mkdir()
    for name in ort_training.FILES:
        (tmp_path / name).write_bytes(b"not a model")
    with pytest.raises(BundleError, match="onnxruntime-training failed"):
        OrtTrainingBackend(dataclasses.replace(compiled.bundle, root=tmp_path), parameters, 1)
    assert capfd.readouterr() == ("", "")


def test_a_step_that_fails_is_told_by_its_error_alone(
    compiled: TinyBundle, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OrtTrainingBackend(compiled.bundle, compiled.arrays(), 1)
    batch = make_batch(rows=2, length=8)
    beyond = dataclasses.replace(batch, input_ids=np.full_like(batch.input_ids, 10**6))
    with pytest.raises(BundleError) as raised:
        backend.accumulate(beyond, SCALE, None)
    assert raised.value.message.startswith("onnxruntime-training failed: [ONNXRuntimeError] : ")
    assert len(raised.value.message) < 250 and raised.value.message.isprintable()
    assert capfd.readouterr() == ("", "")

    def starved() -> None:
        raise RuntimeError("bad allocation")

    monkeypatch.setattr(backend._module, "lazy_reset_grad", starved)
    with pytest.raises(MemoryError):
        backend.accumulate(batch, SCALE, None)
