"""What holds of activation functions that are one-sided, or nearly: a GELU, exact or by its tanh, a SiLU, a ReLU."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

__all__ = ["ONE_SIDED", "one_sided"]

# The least that the largest value of a row counts as, by operator: seven times what the function falls below zero, at
# most (0.170 and 0.279). Negative values are then within a seventh of a row's size. A ReLU has none; a row of zeros is
# not divided by zero.
ONE_SIDED: Mapping[str, float] = {"Gelu": 1.2, "TanhGelu": 1.2, "Silu": 2.0, "Relu": 1e-30}


def one_sided(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes a value, where it is one of ONE_SIDED."""
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type in ONE_SIDED else None
