"""Which FFN nodes and attention heads learn: the best by a metric, or one of three selections to compare with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import numpy as np

from edge_far.errors import ConfigError, UsageError
from edge_far.far.nodes import Units

__all__ = ["METHODS", "Selection", "learner_count", "select_learners", "top_nodes"]

METHODS = ("far", "random", "magnitude", "first")


@dataclass(frozen=True, eq=False)
class Selection:
    """The learners of every block.

    `learners[b]` holds sorted int64 node indices; `metrics[b]` is float64 [ffn], or None for a method that
    measures nothing. `heads` is the same of attention heads, or None where attention is one piece that learns whole.
    """

    method: str
    retention: float
    learners: tuple[np.ndarray, ...]
    metrics: tuple[np.ndarray | None, ...]
    heads: Selection | None = None


def learner_count(retention: float, units: int) -> int:
    """Return how many of `units` nodes or heads learn: the nearest whole number, halves up, at least 1 above zero.

    The product is taken on the decimal digits of `retention`, so that 0.1 means one tenth (0.1 of 3072 is
    307). Raises ConfigError when `retention` is not within 0 to 1.
    """
    if not (math.isfinite(retention) and 0 <= retention <= 1):
        raise ConfigError(f"retention is {retention}", where="retention", hint="give a number from 0 to 1")
    if retention == 0:
        return 0
    exact = Decimal(str(retention)) * units
    return max(1, int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP)))


def top_nodes(metric: np.ndarray, count: int) -> np.ndarray:
    """Return the sorted int64 indices of the `count` largest values; of equals the lowest index wins."""
    if not np.isfinite(metric).all():
        raise ConfigError("the node metric holds values that are not finite", hint="lower the learning rate")
    order = np.argsort(-metric, kind="stable")
    return np.sort(order[:count]).astype(np.int64)


def select_learners(
    method: str,
    retention: float,
    blocks: Sequence[Units],
    metrics: Sequence[np.ndarray] | None = None,
    seed: int = 0,
) -> Selection:
    """Choose the learners of every block: nodes where `blocks` are FFNs, heads where they are attentions.

    'far' takes the largest values of `metrics` (one float array [units] per block, from priming), 'magnitude'
    the units with the largest L1 norm of their parameters, 'random' draws from `seed`, 'first' takes the
    lowest indices. Raises ConfigError for an unknown method or retention, UsageError for missing or misfit
    metrics.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown selection '{method}'", where="selection", hint="one of " + ", ".join(METHODS))
    measured = _measure(method, blocks, metrics)
    generator = np.random.default_rng(seed)
    learners = []
    for block, metric in zip(blocks, measured, strict=True):
        count = learner_count(retention, block.units)
        if metric is not None:
            chosen = top_nodes(metric, count)
        elif method == "random":
            chosen = np.sort(generator.permutation(block.units)[:count]).astype(np.int64)
        else:
            chosen = np.arange(count, dtype=np.int64)
        learners.append(chosen)
    return Selection(method, retention, tuple(learners), measured)


def _measure(
    method: str, blocks: Sequence[Units], metrics: Sequence[np.ndarray] | None
) -> tuple[np.ndarray | None, ...]:
    if method == "magnitude":
        return tuple(block.l1(block.values()) for block in blocks)
    if method != "far":
        return (None,) * len(blocks)
    if metrics is None:
        raise UsageError("the selection 'far' needs the metrics of a priming run")
    sizes, expected = [len(m) for m in metrics], [block.units for block in blocks]
    if sizes != expected:
        raise UsageError(f"the metrics have {sizes} values, the model's blocks {expected}")
    return tuple(np.asarray(m, dtype=np.float64) for m in metrics)
