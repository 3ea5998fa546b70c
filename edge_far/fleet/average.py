"""The weighted mean of the devices' learners, in float64, rounded to float32 once: FedAvg (arXiv 1602.05629).

NumPy alone. Flower's own mean multiplies and adds in the arrays' type, so that its result depends on the order in
which answers came; here the order is that of the list, and the last bit is what the definition says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_far.fleet.exchange import Arrays

__all__ = ["weighted_mean"]


def weighted_mean(learners: Sequence[Arrays], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """Return sum(weight * learners) / sum(weights) as float32, summed in float64 in the order given.

    All have the same names and shapes, in float32 or float64; weights are positive. Raises ValueError for none.
    """
    if not learners or len(learners) != len(weights) or min(weights) <= 0:
        raise ValueError("a mean needs learners, each with a positive weight")
    total = float(sum(weights))
    result = {}
    for name in learners[0]:
        found = np.zeros(learners[0][name].shape, np.float64)
        for arrays, weight in zip(learners, weights, strict=True):
            found += float(weight) * arrays[name].astype(np.float64)
        result[name] = (found / total).astype(np.float32)
    return result
