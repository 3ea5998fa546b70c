"""How sure we may be that one model is not worse than another, from their answers to the same questions.

Only the *discordant* examples tell: `gains` are those that the candidate alone gets right, `losses` those
that the reference alone gets right, of n in all. The accuracy difference is (gains - losses) / n; its lower
bound is that of Tango's score interval (T. Tango, Statistics in Medicine 17, 1998, 891-908), which keeps
its level at small n and with few discordant pairs, where the usual Wald interval does not: the chance to
pass with a true loss of exactly the tolerance is at most 6.1 % for a nominal 5 %
(tests/daemon/gate/test_paired.py sums it). Power is not approximated either but summed over all outcomes.
Standard library only.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

__all__ = ["acceptance_probability", "accepts", "detectable_loss", "lower_bound", "smallest_sample"]

TAIL_STANDARD_DEVIATIONS = 8.0
BISECTIONS = 50


def lower_bound(n: int, gains: int, losses: int, confidence: float) -> float:
    """Return the one-sided lower confidence bound of the accuracy difference (-1 to 1)."""
    quantile = NormalDist().inv_cdf(confidence)
    low, high = -1.0, (gains - losses) / n
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _score(n, gains, losses, middle) > quantile:
            low = middle
        else:
            high = middle
    return low


def accepts(n: int, gains: int, losses: int, tolerance: float, confidence: float, *, superior: bool) -> bool:
    """Return whether the lower bound is above minus `tolerance`, and with `superior` also gains >= losses."""
    if superior and gains < losses:
        return False
    return _score(n, gains, losses, -tolerance) > NormalDist().inv_cdf(confidence)


def acceptance_probability(
    n: int, gain: float, loss: float, tolerance: float, confidence: float, *, superior: bool
) -> float:
    """Return how probably `accepts` holds when an example is a gain or a loss with these probabilities."""
    total = 0.0
    for losses in _likely(n, loss):
        least = _least_gains(n, losses, tolerance, confidence, superior)
        if least is not None:
            share = gain / (1 - loss) if loss < 1 else 0.0
            total += _binomial(n, losses, loss) * _at_least(n - losses, least, share)
    return min(total, 1.0)


def detectable_loss(
    n: int, discordant: float, tolerance: float, confidence: float, *, superior: bool, power: float = 0.8
) -> float:
    """Return the smallest true loss of accuracy that is refused with probability `power`.

    `discordant` is the share of examples on which the two models differ in being right; a loss larger than
    that is taken as all losses and no gains.
    """
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        gain, loss = max(discordant - middle, 0.0) / 2, (max(discordant, middle) + middle) / 2
        if acceptance_probability(n, gain, loss, tolerance, confidence, superior=superior) > 1 - power:
            low = middle
        else:
            high = middle
    return high


def smallest_sample(tolerance: float, confidence: float) -> int:
    """Return the fewest examples with which agreement on all of them is evidence enough.

    With fewer, a model that is truly worse by the tolerance shows not one loss more often than the confidence
    allows: (1 - tolerance) ** n > 1 - confidence.
    """
    return math.ceil(math.log(1 - confidence) / math.log(1 - tolerance))


def _score(n: int, gains: int, losses: int, difference: float) -> float:
    """Return Tango's score statistic for a hypothesised true difference of at most 0 or of the estimate."""
    b = -gains - losses + (2 * n - gains + losses) * difference
    c = -losses * difference * (1 - difference)
    loss = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)  # its likeliest value under the hypothesis
    variance = n * (2 * loss + difference * (1 - difference))
    excess = gains - losses - n * difference
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)


@lru_cache(maxsize=4096)
def _least_gains(n: int, losses: int, tolerance: float, confidence: float, superior: bool) -> int | None:
    """Return the fewest gains that are accepted beside so many losses, or None."""
    low, high = (losses if superior else 0), n - losses
    if low > high or not accepts(n, high, losses, tolerance, confidence, superior=superior):
        return None
    while low < high:
        middle = (low + high) // 2
        if accepts(n, middle, losses, tolerance, confidence, superior=superior):
            high = middle
        else:
            low = middle + 1
    return low


def _likely(n: int, probability: float) -> range:
    """Return the outcomes of a binomial variable that are not negligible."""
    spread = TAIL_STANDARD_DEVIATIONS * math.sqrt(n * probability * (1 - probability)) + 10
    centre = n * probability
    return range(max(0, math.floor(centre - spread)), min(n, math.ceil(centre + spread)) + 1)


def _binomial(n: int, k: int, probability: float) -> float:
    if probability <= 0 or probability >= 1:
        return float(k == (n if probability >= 1 else 0))
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(probability) + (n - k) * math.log1p(-probability))


def _at_least(n: int, k: int, probability: float) -> float:
    likely = _likely(n, probability)
    return math.fsum(_binomial(n, value, probability) for value in range(max(k, likely.start), likely.stop))
