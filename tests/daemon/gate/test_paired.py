"""Statistics of paired comparisons, against direct numerical optimisation and exact enumeration."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from edge_far.daemon.gate.paired import (
    acceptance_probability,
    accepts,
    detectable_loss,
    lower_bound,
    smallest_sample,
)


def score_by_search(n: int, gains: int, losses: int, difference: float) -> float:
    """The score statistic with its nuisance parameter found by golden-section search, not by formula."""

    def log_likelihood(loss: float) -> float:
        parts = ((gains, loss + difference), (losses, loss), (n - gains - losses, 1 - 2 * loss - difference))
        if any(probability < 0 or (count and probability == 0) for count, probability in parts):
            return -math.inf
        return sum(count * math.log(probability) for count, probability in parts if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(200):
        left, right = high - golden * (high - low), low + golden * (high - low)
        if log_likelihood(left) >= log_likelihood(right):
            high = right
        else:
            low = left
    loss = (low + high) / 2
    variance = n * (2 * loss + difference - difference**2)
    return (gains - losses - n * difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("n", "gains", "losses"),
    [(30, 0, 0), (30, 3, 0), (30, 0, 3), (50, 7, 4), (200, 20, 21), (1000, 31, 12), (44, 0, 44), (21, 1, 7)],
)
def test_lower_bound_solves_the_score_equation(n: int, gains: int, losses: int) -> None:
    bound = lower_bound(n, gains, losses, 0.95)
    if bound > -1 + 1e-9:
        expected = NormalDist().inv_cdf(0.95)
        assert score_by_search(n, gains, losses, bound) == pytest.approx(expected, rel=2e-4)
    assert -1 <= bound <= (gains - losses) / n


def test_bound_of_no_discordant_pair_is_known() -> None:
    """With no discordant pair the bound is -z^2 / (n + z^2)."""
    square = NormalDist().inv_cdf(0.95) ** 2
    for n in (10, 52, 1000):
        assert lower_bound(n, 0, 0, 0.95) == pytest.approx(-square / (n + square), rel=1e-9)


def test_published_example() -> None:
    """Airway hyper-responsiveness before and after transplantation, n = 21: Tango's 95 % interval."""
    assert lower_bound(21, 1, 7, 0.975) == pytest.approx(-0.517, abs=1e-3)
    assert -lower_bound(21, 7, 1, 0.975) == pytest.approx(-0.026, abs=1e-3)


def test_accepts_agrees_with_the_bound() -> None:
    for n in (60, 137):
        for losses in range(0, 12):
            for gains in range(0, 12):
                bound = lower_bound(n, gains, losses, 0.95) > -0.05
                assert accepts(n, gains, losses, 0.05, 0.95, superior=False) == bound
                assert accepts(n, gains, losses, 0.05, 0.95, superior=True) == (bound and gains >= losses)


@pytest.mark.parametrize("superior", [True, False])
@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.0), (0.05, 0.05), (0.02, 0.1), (0.3, 0.2), (0.0, 1.0)])
def test_acceptance_probability_is_the_sum_over_all_outcomes(gain: float, loss: float, superior: bool) -> None:
    n, total = 60, 0.0
    for gains in range(n + 1):
        for losses in range(n + 1 - gains):
            if accepts(n, gains, losses, 0.05, 0.95, superior=superior):
                ways = math.comb(n, gains) * math.comb(n - gains, losses)
                total += ways * gain**gains * loss**losses * (1 - gain - loss) ** (n - gains - losses)
    found = acceptance_probability(n, gain, loss, 0.05, 0.95, superior=superior)
    assert found == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize(
    ("tolerance", "n"),
    [(0.05, n) for n in (59, 80, 100, 150, 300, 1000)] + [(0.02, n) for n in (149, 200, 300, 500, 1000)],
)
def test_level_is_kept(tolerance: float, n: int) -> None:
    """A candidate truly worse by the tolerance passes one time in twenty, whatever the discordance."""
    gains = [step / 1000 for step in range(20)] + [step / 50 for step in range(1, 24)]
    worst = max(acceptance_probability(n, gain, gain + tolerance, tolerance, 0.95, superior=False) for gain in gains)
    assert worst <= 0.061


def test_smallest_sample_is_exact() -> None:
    for tolerance in (0.01, 0.02, 0.05, 0.1):
        n = smallest_sample(tolerance, 0.95)
        assert accepts(n, 0, 0, tolerance, 0.95, superior=True)
        assert (1 - tolerance) ** n <= 0.05 < (1 - tolerance) ** (n - 1)


def test_detectable_loss_is_where_power_is_reached_and_shrinks_with_n() -> None:
    found = [detectable_loss(n, 0.1, 0.05, 0.95, superior=True) for n in (200, 500, 1000)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.01 < 0.02 < found[0]
    for n, loss in zip((200, 500, 1000), found, strict=True):
        probability = acceptance_probability(n, (0.1 - loss) / 2, (0.1 + loss) / 2, 0.05, 0.95, superior=True)
        assert probability == pytest.approx(0.2, abs=0.01)


def test_large_samples_are_quick_enough() -> None:
    assert 0 < detectable_loss(20_000, 0.1, 0.05, 0.95, superior=True) < 0.01
