"""Rows of a head for new labels: what the head reads, found from gradients; the fit is the least of its objective."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.session import PortableBackend
from edge_far.device.new_rows import PENALTY, fit_new_rows, fitted_rows, head_of
from edge_far.errors import BundleError
from edge_far.texts.batches import Batch
from tests.tiny_cases import Oracle

pytestmark = pytest.mark.device

OpenBundle = Callable[[str], Bundle]


def test_a_fit_is_the_least_of_its_objective() -> None:
    random = np.random.default_rng(0)
    vectors, targets = random.normal(size=(60, 8)), random.integers(0, 4, 60)
    weight, bias = random.normal(size=(4, 8)), random.normal(size=4)
    rows, counts = [1, 3], random.integers(1, 9, 60).astype(float)

    def objective(at: np.ndarray) -> float:
        w, b = weight.copy(), bias.copy()
        w[rows], b[rows] = at[:, :-1], at[:, -1]
        logits = vectors @ w.T + b
        losses = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(60), targets]
        return float(losses @ counts / counts.sum() + PENALTY / 2 * np.square(at[:, :-1]).sum())

    found = fitted_rows(vectors, targets, weight.astype(np.float32), bias.astype(np.float32), rows, counts)
    at = np.concatenate([found[0], found[1][:, None]], axis=1).astype(np.float64)
    assert found[0].dtype == np.float32 and at.shape == (2, 9)
    for place in np.ndindex(at.shape):  # it is convex: no slope, no better place
        step = np.zeros_like(at)
        step[place] = 1e-4
        assert abs(objective(at + step) - objective(at - step)) / 2e-4 < 1e-3


@pytest.mark.parametrize("name", ["tiny-fp32", "bert-head-5", "roberta-top1-5-dropout", "bert-r40-5-int8"])
def test_what_the_head_reads_is_found_from_gradients(
    name: str, tiny_bundle: OpenBundle, oracle: Callable[[str], Oracle]
) -> None:
    bundle, batch = tiny_bundle(name), oracle(name).batch(1)
    singles = [
        Batch(batch.input_ids[n : n + 1], batch.attention_mask[n : n + 1], None, batch.labels[n : n + 1])
        for n in range(len(batch.labels))
    ]
    backend = PortableBackend(bundle, read_arrays(bundle.path("learners.safetensors")), 1, dropout=False)
    before = {key: array.copy() for key, array in backend.parameters.items()}
    logits = np.concatenate([backend.logits(single) for single in singles])
    rows = [int(batch.labels[0])]
    head = head_of(list(before), [array.shape for array in before.values()], 5)
    count = fit_new_rows(backend, lambda number: singles[number], batch.labels, rows, 5, seed=0)
    after = np.concatenate([backend.logits(single) for single in singles])
    assert count == len(singles)
    changed = {key for key, array in backend.parameters.items() if not np.array_equal(array, before[key])}
    assert changed == {head, head.removesuffix("weight") + "bias"}
    others = [number for number in range(5) if number not in rows]
    np.testing.assert_allclose(after[:, others], logits[:, others], rtol=0, atol=1e-5)
    own = batch.labels == rows[0]
    assert after[own, rows[0]].min() > after[~own, rows[0]].max(initial=-np.inf), "the row tells its examples"
    assert all(not gradient.any() for gradient in backend.gradients.values())
    backend.close()


def test_learners_without_a_head() -> None:
    with pytest.raises(BundleError, match="has no head"):
        head_of(["a.weight", "classifier.weight"], [(5, 3), (4, 3)], 5)
