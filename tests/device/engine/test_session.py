"""The portable backend against torch: losses, gradients, logits, in-place accumulation, dropout with given masks.

The oracles were computed by torch autograd on the reconfigured model (scripts/make_tiny_bundles.py). The tests run
on whichever ONNX Runtime is installed; in the device's environment that is the stock wheel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.session import PortableBackend
from edge_far.errors import BundleError
from edge_far.texts.batches import Batch
from tests.other_tasks import counted
from tests.tiny_cases import BATCH_SHAPES, DROPOUT_BATCH, DROPOUT_KEY, Case, Oracle, cases, gradient_errors

pytestmark = pytest.mark.device  # onnxruntime-training's ONNX Runtime is too old for the operator Attention

TOLERANCE = 1e-5
# A softmax over places less its target sums to nothing, so what is added to all tokens alike before the head has no
# gradient: what is left is the rounding of a sum over all tokens.
NO_GRADIENT = {"qa_outputs.bias", "classifier.bias", "roberta.encoder.layer.1.output.LayerNorm.bias"}
OpenBundle = Callable[[str], Bundle]
LoadOracle = Callable[[str], Oracle]


def names(chosen: list[Case]) -> list[str]:
    return [case.name for case in chosen]


@contextmanager
def backend_for(bundle: Bundle, *, dropout: bool = False) -> Iterator[PortableBackend]:
    learners = read_arrays(bundle.path("learners.safetensors"))
    backend = PortableBackend(bundle, learners, threads=1, dropout=dropout)
    try:
        yield backend
    finally:
        backend.close()


def rows_of(batch: Batch, start: int, stop: int) -> Batch:
    types = None if batch.token_type_ids is None else batch.token_type_ids[start:stop]
    return Batch(batch.input_ids[start:stop], batch.attention_mask[start:stop], types, batch.labels[start:stop])


def worst(errors: dict[str, float]) -> str:
    name = max(errors, key=lambda key: errors[key])
    return f"{name}: {errors[name]:.2e}"


@pytest.mark.parametrize("name", names(cases(precision="fp32")))
def test_loss_and_gradients_equal_torch(name: str, tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    bundle, expected = tiny_bundle(name), oracle(name)
    with backend_for(bundle) as backend:
        for number in range(len(BATCH_SHAPES)):
            for gradient in backend.gradients.values():
                gradient[...] = 0
            batch = expected.batch(number)
            loss = backend.accumulate(batch, 1 / len(batch.labels), None)
            assert loss == pytest.approx(expected.loss(number), rel=1e-6, abs=1e-6)
            assert backend.gradients.keys() == expected.gradients(number).keys()
            errors = gradient_errors(backend.gradients, expected.gradients(number))
            if bundle.manifest.task.loss == "span":
                for name in set(errors) & NO_GRADIENT:
                    assert np.abs(backend.gradients[name]).max() < 1e-6 and errors.pop(name) < 1e-4
            assert max(errors.values()) <= TOLERANCE, f"batch {number}, {worst(errors)}"


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_step_graph_gives_the_same_gradients(case: Case, tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    """Recomputed blocks of the exact plan give the same bits, dropout masks included; step-lean rounds a little.

    In the other plans the two leaner graphs make GELU(x + d) of two operators and keep attention's inputs in 16 bits:
    a last bit more or less in what is then rounded to 8 bits.
    """
    bundle, expected = tiny_bundle(case.name), oracle(case.name)
    masks = bool(bundle.manifest.portable.masks)
    results = {}
    with backend_for(bundle, dropout=masks) as backend:
        for step in bundle.manifest.portable.steps:
            for gradient in backend.gradients.values():
                gradient[...] = 0
            key = DROPOUT_KEY if masks else None
            losses = [backend.accumulate(expected.batch(n), 0.25, key, step.name) for n in range(len(BATCH_SHAPES))]
            results[step.name] = losses, {key: array.copy() for key, array in backend.gradients.items()}
    losses, gradients = results.pop("step")
    assert any(np.any(array) for array in gradients.values())
    for name, (found_losses, found) in results.items():
        assert found_losses == pytest.approx(losses, rel=1e-6)
        if case.precision == "fp32" and name == "step-remat":
            for key, array in gradients.items():
                np.testing.assert_array_equal(found[key], array, err_msg=key)
            continue
        errors = gradient_errors(found, gradients)
        limit = 2e-6 if case.precision == "fp32" else 5e-3
        assert max(errors.values()) <= limit, f"{name}: {worst(errors)}"


@pytest.mark.parametrize("name", names(cases()))
def test_the_run_that_shrinks_the_arena_adds_nothing(name: str, tiny_bundle: OpenBundle) -> None:
    bundle = tiny_bundle(name)
    backend = PortableBackend(bundle, read_arrays(bundle.path("learners.safetensors")), threads=1)
    for variant in (step.name for step in bundle.manifest.portable.steps):
        backend._shrink_arena(variant)
    assert not any(np.any(gradient) for gradient in backend.gradients.values()), "no number, and no NaN"


def test_some_tiny_bundles_recompute_blocks(tiny_bundle: OpenBundle) -> None:
    """Two tiny blocks are few: where the last computes one row alone, nothing is saved and there is one step graph."""
    found = {
        case.name
        for case in cases()
        if "step-remat" in {step.name for step in tiny_bundle(case.name).manifest.portable.steps}
    }
    assert {"distilbert-r40-2-all-tokens", "roberta-r10-5-dropout"} <= found


@pytest.mark.parametrize("name", names(cases(precision="fp32", dropout=True)))
def test_gradients_with_dropout_equal_torch_with_the_same_masks(
    name: str, tiny_bundle: OpenBundle, oracle: LoadOracle
) -> None:
    bundle, expected = tiny_bundle(name), oracle(name)
    batch = expected.batch(DROPOUT_BATCH)
    with backend_for(bundle, dropout=True) as backend:
        loss = backend.accumulate(batch, 1 / len(batch.labels), DROPOUT_KEY)
        errors = gradient_errors(backend.gradients, expected.gradients("dropout"))
    assert abs(loss - expected.loss(DROPOUT_BATCH)) > 1e-3, "dropout changes the loss"
    assert loss == pytest.approx(expected.loss("dropout"), rel=1e-6)
    assert max(errors.values()) <= TOLERANCE, worst(errors)


def test_dropout_needs_a_key_and_repeats_with_it(tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    batch = oracle("tiny-fp32").batch(0)
    with backend_for(tiny_bundle("tiny-fp32"), dropout=True) as backend:
        with pytest.raises(ValueError, match="needs a key"):
            backend.accumulate(batch, 1.0, None)
        losses = [backend.accumulate(batch, 1.0, DropoutKey(0, step, 0)) for step in (1, 2, 1)]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.parametrize("name", ["bert-r10-2", "distilbert-r10-77", "roberta-r40-77-embeddings"])
@pytest.mark.parametrize("cuts", [(1,), (2,), (3,), (1, 2), (1, 2, 3)])
def test_micro_batches_add_up_to_the_whole_batch(
    name: str, cuts: tuple[int, ...], tiny_bundle: OpenBundle, oracle: LoadOracle
) -> None:
    expected = oracle(name)
    batch = expected.batch(1)
    edges = (0, *cuts, len(batch.labels))
    with backend_for(tiny_bundle(name)) as backend:
        parts = [rows_of(batch, start, stop) for start, stop in itertools.pairwise(edges)]
        loss = sum(backend.accumulate(part, 1 / len(batch.labels), None) for part in parts)
        errors = gradient_errors(backend.gradients, expected.gradients(1))
    assert loss == pytest.approx(expected.loss(1), rel=1e-6)
    assert max(errors.values()) <= TOLERANCE, worst(errors)


@pytest.mark.parametrize("name", ["bert-r10-2", "bert-r40-77-embeddings", "tiny-int8"])
def test_gradients_accumulate_in_place(name: str, tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    batch = oracle(name).batch(0)
    with backend_for(tiny_bundle(name)) as backend:
        arrays = dict(backend.gradients)
        backend.accumulate(batch, 0.5, None)
        once = {key: array.copy() for key, array in arrays.items()}
        backend.accumulate(batch, 0.5, None)
        assert all(backend.gradients[key] is array for key, array in arrays.items())
        assert any(np.any(array) for array in once.values())
        for key, array in arrays.items():
            scale = float(np.abs(once[key]).max())
            np.testing.assert_allclose(array, 2 * once[key], rtol=1e-5, atol=1e-6 * scale, err_msg=key)


@pytest.mark.parametrize("name", names(cases(precision="fp32")))
def test_logits_equal_the_original_model(name: str, tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    expected = oracle(name)
    with backend_for(tiny_bundle(name)) as backend:
        for number in range(len(BATCH_SHAPES)):
            batch = expected.batch(number)
            found, wanted = (counted(each, batch) for each in (backend.logits(batch), expected.logits(number)))
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_parameters_are_read_in_place(tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    batch = oracle("distilbert-r10-77").batch(0)
    with backend_for(tiny_bundle("distilbert-r10-77")) as backend:
        before, loss_before = backend.logits(batch), backend.accumulate(batch, 1.0, None)
        backend.parameters["classifier.bias"] += np.arange(77, dtype=np.float32)
        difference = backend.logits(batch) - before
        assert backend.accumulate(batch, 1.0, None) != loss_before
    np.testing.assert_allclose(difference, np.broadcast_to(np.arange(77), (3, 77)), atol=1e-4)


@pytest.mark.parametrize("name", ["bert-r10-2", "bert-r10-5-dropout"])
def test_token_types_of_text_pairs_count(name: str, tiny_bundle: OpenBundle, oracle: LoadOracle) -> None:
    batch = oracle(name).batch(1)
    assert batch.token_type_ids is not None and batch.token_type_ids.any()
    plain = Batch(batch.input_ids, batch.attention_mask, None, batch.labels)
    zeros = Batch(batch.input_ids, batch.attention_mask, np.zeros_like(batch.input_ids), batch.labels)
    with backend_for(tiny_bundle(name)) as backend:
        pairs, singles, explicit = (backend.logits(each) for each in (batch, plain, zeros))
    np.testing.assert_array_equal(singles, explicit)
    assert np.abs(pairs - singles).max() > 1e-2


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    a, b = left.ravel().astype(np.float64), right.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("name", names(cases(precision="int8")))
def test_int8_non_learners_keep_the_gradients_direction(
    name: str, tiny_bundle: OpenBundle, oracle: LoadOracle, record_property: Callable[[str, object], None]
) -> None:
    """Each learner's gradient points where torch's fp32 one does: cosine at least 0.97.

    The bound is that of the weakest learner. Activations are rounded to 8 bits with one scale a tensor, an error of
    about 1 % an element; a tiny model has rows of 32 numbers to average it over, a real one has 384 or more.
    Gradients below 1e-3 of the global norm are left out: the key biases' are zero but for rounding.
    """
    expected = oracle(name)
    lowest = {}
    with backend_for(tiny_bundle(name)) as backend:
        for number in range(len(BATCH_SHAPES)):
            for gradient in backend.gradients.values():
                gradient[...] = 0
            batch = expected.batch(number)
            loss = backend.accumulate(batch, 1 / len(batch.labels), None)
            assert loss == pytest.approx(expected.loss(number), rel=0.03)
            wanted = expected.gradients(number)
            floor = 1e-3 * np.sqrt(sum(np.sum(np.square(array)) for array in wanted.values()))
            for key, array in wanted.items():
                if np.linalg.norm(array) > floor:
                    lowest[key] = min(lowest.get(key, 1.0), cosine(backend.gradients[key], array))
            difference = np.abs(counted(backend.logits(batch) - expected.logits(number), batch)).max()
            assert difference < 0.1 * np.abs(expected.logits(number)).max()
    key = min(lowest, key=lambda each: lowest[each])
    record_property("lowest cosine", f"{key}: {lowest[key]:.4f}")
    print(f"{name}: lowest cosine {lowest[key]:.4f} ({key}), median {np.median(list(lowest.values())):.4f}")
    assert lowest[key] >= 0.97, f"{key}: {lowest[key]:.4f}"


def test_wrong_parameters_are_refused(tiny_bundle: OpenBundle) -> None:
    bundle = tiny_bundle("bert-r10-2")
    learners = read_arrays(bundle.path("learners.safetensors"))
    for wrong in (np.zeros(3, np.float32), np.zeros(2, np.float64)):
        with pytest.raises(BundleError, match=r"classifier\.bias is missing or not float32 \(2,\)"):
            PortableBackend(bundle, learners | {"classifier.bias": wrong}, threads=1)
    del learners["classifier.bias"]
    with pytest.raises(BundleError, match=r"classifier\.bias is missing"):
        PortableBackend(bundle, learners, threads=1)
