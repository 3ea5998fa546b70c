"""The studentised bootstrap: its level by simulation, against the normal bound where that is exact, and its edges."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest

from edge_far.bundles.manifest import Scale
from edge_far.daemon.gate import bootstrap
from edge_far.daemon.gate.bootstrap import acceptance_probability, detectable_loss, lower_bound
from edge_far.daemon.gate.verdict import Answers, GateSettings, decide
from edge_far.tasks.regress import Regress

TRIALS = 250
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda random, n: random.normal(size=n),
    "two in three equal": lambda random, n: random.normal(size=n) * (random.random(n) < 1 / 3),
    "squared errors": lambda random, n: random.normal(size=n) ** 2 - random.normal(size=n) ** 2,
    "skewed": lambda random, n: 1 - random.exponential(size=n),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_the_bound_is_above_the_truth_about_as_often_as_it_may(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nominal 5 %, of a true mean of zero, at 60 examples; the standard error of the count is 1.4 %."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 120)
    random = np.random.default_rng(len(kind))
    wrong = sum(lower_bound(DRAWS[kind](random, 60), 0.95) > 0 for _ in range(TRIALS))
    assert 0.008 <= wrong / TRIALS <= 0.1


def test_with_many_examples_it_is_the_normal_bound() -> None:
    differences = np.random.default_rng(0).normal(0.1, 1.0, 5000)
    normal = differences.mean() - NormalDist().inv_cdf(0.95) * differences.std(ddof=1) / 5000**0.5
    assert lower_bound(differences, 0.95) == pytest.approx(normal, abs=1e-3)
    assert lower_bound(differences, 0.95) == lower_bound(differences.copy(), 0.95)


def test_edges() -> None:
    assert lower_bound(np.zeros(60), 0.95) == 0.0 and lower_bound(np.full(60, -0.25), 0.95) == -0.25
    one_loss = np.zeros(60)
    one_loss[0] = -1.0
    assert lower_bound(one_loss, 0.95) == -1.0, "one in three resamples has not that example: nothing is sure"


def test_power_is_that_of_the_test() -> None:
    differences = np.random.default_rng(1).normal(0.0, 0.5, 200)
    loss = detectable_loss(differences, 0.05, 0.95, superior=True)
    assert acceptance_probability(differences, loss, 0.05, 0.95, superior=True) == pytest.approx(0.2)
    assert acceptance_probability(differences, 0.0, 10.0, 0.95, superior=False) == pytest.approx(1.0)
    assert acceptance_probability(np.zeros(60), 0.0, 0.05, 0.95, superior=True) == 1.0
    assert acceptance_probability(np.zeros(60), 0.1, 0.05, 0.95, superior=True) == 0.0
    assert detectable_loss(np.zeros(60), 0.05, 0.95, superior=True) == 0.0


def test_the_gate_compares_numbers_by_their_errors() -> None:
    task, random = Regress(Scale(2.5, 1.5)), np.random.default_rng(0)
    targets = random.normal(size=(120, 1)).astype(np.float32)
    good, better = (targets + random.normal(size=(120, 1)).astype(np.float32) * noise for noise in (0.5, 0.3))
    decision = decide(Answers(task, targets, better, good), settings=GateSettings(tolerance=0.05))
    assert decision.accepted and decision.device is not None and "explained variance 0.9" in decision.reasons[0]
    device = decision.device.as_document()
    assert device["score"] == "explained"
    assert device["candidate_explained"] == pytest.approx(1 - np.square(better - targets).mean(), rel=1e-5)
    assert device["difference"] == pytest.approx(device["candidate_explained"] - device["reference_explained"])
    assert device["candidate_pearson"] > device["reference_pearson"] > 0.7
    (worse,) = decide(Answers(task, targets, good, better)).reasons
    assert "device: explained variance" in worse and "is below the current release's" in worse
    doubled = decide(Answers(task, targets, 2 * targets, good))
    assert not doubled.accepted, "it correlates perfectly, and is wrong"
    (constant, *_) = decide(Answers(task, targets, np.zeros((120, 1)), good)).reasons
    assert "the same answer" in constant
