"""The baseline: converged, equal to an independent optimum, and at most 85 % on the demo's test split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_far.demo.bag_of_words import TOLERANCE, BagOfWords, measure_baseline
from edge_far.demo.generate import generate
from edge_far.texts.data import Example

TINY = [
    Example("lights on", label="on"),
    Example("turn it on", label="on"),
    Example("lights off", label="off"),
    Example("turn it off", label="off"),
    Example("turn it up", label="up"),
]


def test_reaches_the_optimum_that_plain_gradient_descent_reaches() -> None:
    penalty = 0.01
    model = BagOfWords(penalty).fit(TINY)
    assert model.largest_gradient < TOLERANCE
    terms = list(model.features)
    inputs = np.zeros((5, len(terms) + 1))
    for row, example in enumerate(TINY):
        words = example.text.split()
        present = words + [" ".join(pair) for pair in itertools.pairwise(words)]
        for term in present:
            inputs[row, terms.index(term)] = 1 / np.sqrt(len(present))
    inputs[:, -1] = 1
    targets = np.array([[label == example.label for label in model.labels] for example in TINY], float)
    decay = np.ones((len(terms) + 1, 1))
    decay[-1] = 0
    weights = np.zeros((len(terms) + 1, 3))
    for _ in range(20_000):
        scores = np.exp(inputs @ weights)
        error = scores / scores.sum(axis=1, keepdims=True) - targets
        weights -= 1.0 * (inputs.T @ error / 5 + penalty * decay * weights)
    np.testing.assert_allclose(model.weights, weights, atol=2e-3)


def test_predicts_the_majority_direction_and_ignores_unknown_words() -> None:
    model = BagOfWords(1e-3).fit(TINY)
    assert model.predict([Example("lamp off"), Example("zzz on")]) == ["off", "on"]
    assert model.accuracy(TINY) == 1.0


@pytest.mark.parametrize("seed", [0, 1])
def test_demo_data_keeps_the_baseline_at_or_under_85_percent(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_far.demo.bag_of_words.PENALTIES", (1e-5, 1e-3))
    splits = generate(seed)
    baseline = measure_baseline(splits["train"], splits["eval"], splits["test"])
    assert 0.60 <= baseline.test_accuracy <= 0.85
    assert baseline.features > 2000
