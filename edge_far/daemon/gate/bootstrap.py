"""How sure we may be that one model is not worse than another, where an answer is more or less right.

Each example gives a difference of credits (tasks/), candidate minus reference. The lower bound of their mean is that of
the studentised bootstrap (B. Efron and R. Tibshirani, 1993, chapter 12): resamples of the examples give the
distribution of (mean - true mean) / standard error, so a few large differences widen it, where the normal distribution
would not. Its level is shown by simulation in tests/daemon/gate/test_bootstrap.py. Power is that of the normal
distribution.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

__all__ = ["acceptance_probability", "detectable_loss", "lower_bound"]

RESAMPLES = 2000
POWER = 0.8
_NORMAL = NormalDist()


def lower_bound(differences: np.ndarray, confidence: float) -> float:
    """Return the one-sided lower confidence bound of the mean of float64 [N]; the same numbers give the same bound.

    It is no lower than the worst difference that was seen, which it is where too few differ to say more.
    """
    count, mean = len(differences), float(differences.mean())
    error = _standard_error(differences)
    if error == 0:
        return mean
    random = np.random.default_rng(0)
    found = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        again = differences[random.integers(count, size=count)]
        shift, spread = float(again.mean()) - mean, _standard_error(again)
        # Examples that are all alike say nothing of the spread: as far from the mean as can be.
        found[number] = shift / spread if spread else math.copysign(math.inf, shift) if shift else 0.0
    found.sort()
    quantile = float(found[math.ceil(confidence * RESAMPLES) - 1])
    return max(mean - quantile * error, float(differences.min()))


def acceptance_probability(
    differences: np.ndarray, loss: float, tolerance: float, confidence: float, *, superior: bool
) -> float:
    """Return how probably a candidate passes that is truly worse by `loss`, with differences of this spread."""
    error = _standard_error(differences)
    least = _least(error, tolerance, confidence, superior)
    if error == 0:
        return float(-loss >= least)
    return 1 - _NORMAL.cdf((least + loss) / error)


def detectable_loss(differences: np.ndarray, tolerance: float, confidence: float, *, superior: bool) -> float:
    """Return the smallest true loss that is refused with probability 0.8."""
    error = _standard_error(differences)
    return max(0.0, _NORMAL.inv_cdf(POWER) * error - _least(error, tolerance, confidence, superior))


def _least(error: float, tolerance: float, confidence: float, superior: bool) -> float:
    """Return the smallest mean difference that passes."""
    least = _NORMAL.inv_cdf(confidence) * error - tolerance
    return max(0.0, least) if superior else least


def _standard_error(differences: np.ndarray) -> float:
    return float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
