"""How much a bundle's graphs compute: floating-point operations of products and attentions, the same on every machine.

What their precision is does not matter (compile/emit/costs.py). No time follows from them alone: see step_times.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_far.bundles.manifest import OperatorCost
from edge_far.device.planning.parts import value_at

__all__ = ["batch_flops", "graph_flops"]


def batch_flops(costs: Sequence[OperatorCost], batch: int, micro_batch: int, length: int) -> float:
    """Return the operations of a batch of texts of `length` tokens that a graph takes in micro-batches."""
    full, rest = divmod(batch, micro_batch)
    total = full * graph_flops(costs, micro_batch, length)
    return total + (graph_flops(costs, rest, length) if rest else 0.0)


def graph_flops(costs: Sequence[OperatorCost], rows: int, length: int) -> float:
    """Return the floating-point (or integer) operations of one run of a graph's products and attentions."""
    return sum(cost.count * value_at(cost.work, rows, length) for cost in costs if cost.is_product)
