"""The linear fit: its objective is convex, so that a gradient of zero is the oracle."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from edge_far.bundles.manifest import Scale
from edge_far.choice.linear_fit import choose_strength, fit_linear
from edge_far.tasks.classify import Classify
from edge_far.tasks.multilabel import Multilabel
from edge_far.tasks.regress import Regress

pytestmark = pytest.mark.host

THREE = Classify("abc")


def vectors(seed: int = 0, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(3, size=count)
    centres = random.normal(size=(3, 8))
    return (centres[labels] + random.normal(size=(count, 8)) * 2 + 5).astype(np.float32), labels


@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_gradient_is_zero_where_the_fit_ends(strength: float) -> None:
    inputs, labels = vectors()
    fit = fit_linear(inputs, labels, THREE, strength)
    deviation = inputs.std(axis=0)
    weight = torch.tensor(fit.weight * deviation, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(fit.bias + fit.weight @ inputs.mean(axis=0), dtype=torch.float64, requires_grad=True)
    scaled = torch.tensor((inputs - inputs.mean(axis=0)) / deviation, dtype=torch.float64)
    loss = torch.nn.functional.cross_entropy(scaled @ weight.T + bias, torch.tensor(labels), reduction="sum")
    (loss + weight.square().sum() / (2 * strength)).backward()
    # The fit stops at a mean gradient of 1e-5 or where float32 sees no progress any more: 5e-5 of each of 200 examples.
    assert float(weight.grad.abs().max()) < 1e-2 and float(bias.grad.abs().max()) < 1e-2


def test_a_start_changes_nothing_but_the_way() -> None:
    inputs, labels = vectors()
    cold = fit_linear(inputs, labels, THREE, 0.1)
    warm = fit_linear(inputs, labels, THREE, 0.1, fit_linear(inputs, labels, THREE, 0.001))
    np.testing.assert_allclose(warm.weight, cold.weight, atol=2e-3)


def test_noise_asks_for_a_small_strength_and_a_clear_signal_is_found() -> None:
    inputs, labels = vectors(count=400)
    noise = np.random.default_rng(1).normal(size=inputs.shape).astype(np.float32)
    assert choose_strength(inputs, labels, THREE, 0).strength > 0.001
    fit = choose_strength(np.concatenate([inputs, noise], axis=1), labels, THREE, 0)
    assert THREE.credits(labels, fit.logits(np.concatenate([inputs, noise], axis=1))).mean() > 0.6


def test_a_constant_column_and_a_label_without_examples_do_no_harm() -> None:
    inputs, labels = vectors()
    inputs[:, 0] = 3.0
    fit = fit_linear(inputs, labels, Classify("abcd"), 0.1)
    assert np.isfinite(fit.weight).all() and 3 not in fit.logits(inputs).argmax(axis=1)


def test_numbers_are_fitted_by_ridge_regression() -> None:
    """The fit is scikit-learn's, whose penalty is 1 / (2 C) where squares are summed."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    inputs, _ = vectors()
    targets = (inputs @ np.linspace(-1, 1, 8) + np.random.default_rng(0).normal(size=len(inputs))).reshape(-1, 1)
    task = Regress(Scale(0.0, 1.0))
    fit = fit_linear(inputs, targets.astype(np.float32), task, 0.03)
    scaled = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    ridge = linear_model.Ridge(alpha=1 / (2 * 0.03)).fit(scaled, targets)
    np.testing.assert_allclose(fit.logits(inputs), ridge.predict(scaled).reshape(-1, 1), atol=2e-2)


def test_lists_of_labels_are_fitted_each_by_itself() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    inputs, labels = vectors()
    targets = np.stack([labels == 0, labels >= 1], axis=1).astype(np.float32)
    fit = fit_linear(inputs, targets, Multilabel(["a", "b"]), 0.1)
    scaled = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    # The loss is the mean over two labels: half of what scikit-learn sums, so half its C.
    each = linear_model.LogisticRegression(C=0.05, max_iter=1000).fit(scaled, targets[:, 0])
    np.testing.assert_allclose(fit.logits(inputs)[:, 0], each.decision_function(scaled), atol=2e-2)
