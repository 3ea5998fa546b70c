"""Multiplies a frozen branch's gradient by its stashed GELU derivative in bytes, between the two products in int8.

The stash is 8 bits, and the second product wants 8 bits; in between lay float32, written and read three times. Here the
gradient of the hidden nodes is quantised as soon as it is made, with one scale a row, and QLinearMul multiplies bytes.

A row's scale must be known before its largest value is: reading the row for it would cost what bytes save. The first
product makes h = x @ w, and over many nodes h_j deviates from zero by |x| times the root mean square of column j of w.
So columns are divided by that figure, which the matrix' scales and the second matrix take over, and values up to
DEVIATIONS * |x| are kept; the few beyond are clipped. Every token has a scale of its own, so that a token with a small
gradient loses nothing to one with a large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edge_far.compile.builder import MICROSOFT, Builder, constant_of
from edge_far.compile.graphs import only_user, produced_by
from edge_far.compile.sizes import dims_of

__all__ = ["StashedGradient", "stashed_gradient"]

DEVIATIONS = 4.0
LARGEST = 127  # steps of a row's largest magnitude, in the source's rows and in the gradient's
# GELU' is between -0.13 and 1.13, and so is the product in units of the largest gradient kept.
PRODUCT_SCALE = 1.13
# A row of zeros (padding) stays one.
SMALLEST_STEP = 1e-20


@dataclass(frozen=True)
class StashedGradient:
    """Mul(gradient, DequantizeLinear(stash)), where `first` makes the gradient from quantised rows of `source`."""

    gradient: ir.Value
    stash: ir.Node
    first: ir.Node  # MatMulIntegerToFloat
    source: ir.Node  # QuantizeLinear

    def divide_columns(self, b: Builder) -> np.ndarray:
        """Make the first product divide its columns by their sizes; return these, [columns]."""
        values, scales = constant_of(self.first.inputs[1]), constant_of(self.first.inputs[3])
        assert values is not None and scales is not None
        sizes = np.sqrt((values.astype(np.float32) ** 2).mean(axis=0)) * scales
        sizes = np.where(sizes > 0, sizes, 1.0).astype(np.float32)
        assert self.first.inputs[3] is not None
        self.first.replace_input_with(3, b.constant(scales / sizes, f"{self.first.inputs[3].name}.divided"))
        return sizes

    def product(self, right: tuple[ir.Value, ir.Value], output: ir.Value, b: Builder) -> ir.Value:
        """Return what takes the place of `output`: the product with the matrix `right`, (values, scales)."""
        dims = dims_of(self.gradient)
        rows = dims[0]
        x, steps, zeros = self.source.inputs[:3]
        assert x is not None and steps is not None
        norms = b.op("ReduceL2", [x, b.constant(np.array([-1], np.int64), "last_axis")], (rows,), keepdims=0)
        # The first product is in units of the row's largest magnitude, which is LARGEST steps.
        units = b.mul(b.binary("Div", norms, steps), b.scalar(DEVIATIONS / LARGEST**2))
        row_steps = b.op("Max", [units, b.scalar(SMALLEST_STEP)], (rows,))
        zero, scale = self.first.inputs[4], b.scalar(PRODUCT_SCALE)  # the number that `zeros` repeats for each row
        left = b.op("QuantizeLinear", [self.gradient, row_steps, zeros], dims, dtype=ir.DataType.UINT8, axis=0)
        factors = [left, b.scalar(1.0), zero, *self.stash.inputs, scale, zero]
        both = b.op("QLinearMul", factors, dims, dtype=ir.DataType.UINT8, domain=MICROSOFT)
        result = b.op(
            "MatMulIntegerToFloat", [both, right[0], scale, right[1], zero], dims_of(output), domain=MICROSOFT
        )
        return _times_rows(result, b.reshape_to(row_steps, (rows, 1)), output, b)


def stashed_gradient(value: ir.Value | None) -> StashedGradient | None:
    """Return what makes the value, where it is a gradient in units of its rows times a stash, for one product alone."""
    node = produced_by(value, "Mul")
    if value is None or node is None or only_user(value) is None:
        return None
    gradient, stash = node.inputs[0], produced_by(node.inputs[1], "DequantizeLinear")
    first = produced_by(gradient, "MatMulIntegerToFloat")
    if gradient is None or stash is None or first is None or only_user(gradient) is None:
        return None
    source = produced_by(first.inputs[0], "QuantizeLinear")
    return StashedGradient(gradient, stash, first, source) if source is not None else None


def _times_rows(result: ir.Value, steps: ir.Value, output: ir.Value, b: Builder) -> ir.Value:
    """Return result * steps [rows, 1], or the result alone where its one reader can take the steps over."""
    reader = only_user(output)
    if reader is not None and reader.op_type == "Mul":
        factor = reader.inputs[1]
        if factor is not None and factor is not output and dims_of(factor) == dims_of(steps):
            reader.replace_input_with(1, b.mul(factor, steps))
            return result
    return b.mul(result, steps)
