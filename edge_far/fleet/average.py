"""The weighted mean of the devices' learners, in float64, rounded to float32 once: FedAvg (arXiv 1602.05629).

NumPy alone. Flower's own mean multiplies and adds in the arrays' type, so that its result depends on the order in
which answers came; here the order is that of the list, and the last bit is what the definition says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_far.fleet.exchange import Arrays

__all__ = ["weighted_mean"]


def weighted_mean(before: Arrays, changes: Sequence[Arrays], weights: Sequence[float]) -> dict[str, np.ndarray]:
    """Return before + sum(weight * change) / sum(weights) as float32: summed in float64 in the order given.

    All are float32 of the same names and shapes; weights are positive. Needs memory for two arrays in float64, not for
    one a device. Raises ValueError for no change.
    """
    if not changes or len(changes) != len(weights) or min(weights) <= 0:
        raise ValueError("a mean needs changes, each with a positive weight")
    total = float(sum(weights))
    result = {}
    for name, start in before.items():
        found = np.zeros(start.shape, np.float64)
        for change, weight in zip(changes, weights, strict=True):
            found += float(weight) * change[name].astype(np.float64)
        result[name] = (start.astype(np.float64) + found / total).astype(np.float32)
    return result
