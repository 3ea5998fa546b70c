"""Multiplies a frozen branch's gradient by its stashed GELU derivative in bytes, between the two products in int8.

The stash is 8 bits, and the second product wants 8 bits; in between lay float32, written and read three times. Here the
gradient of the hidden nodes leaves the first product as bytes, in units of its row's size, and QLinearMul multiplies
bytes.

How large the first product becomes must be known before it is: to read it for that would cost what bytes save. It makes
h = x @ w, and over many nodes h_j deviates from zero by |x| times the root mean square of column j of w. Rows have been
brought to one length |x| by scale_gradient_rows; columns are divided by that figure here, which the matrix' scales and
the second matrix take over; so one step suits all of h, and QLinearMatMul gives it in bytes. Values up to
KEPT_DEVIATIONS are kept; the few beyond are clipped. The second product multiplies its rows by their sizes again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import MICROSOFT, Builder, constant_of
from edge_far.compile.graph.edits import only_user, produced_by
from edge_far.compile.graph.sizes import dims_of
from edge_far.compile.precision.scale_gradient_rows import scaled_length

__all__ = ["StashedGradient", "integer_product", "stashed_gradient"]

KEPT_DEVIATIONS = 4.0
KEPT_STEPS = 127  # a byte's steps from zero to the largest magnitude that is kept
# GELU' is between -0.13 and 1.13, and so is the product in units of the largest gradient kept.
PRODUCT_SCALE = 1.13


@dataclass(frozen=True)
class StashedGradient:
    """Mul(gradient, DequantizeLinear(stash)), where `first` makes the gradient from rows of one length."""

    gradient: ir.Value
    stash: ir.Node
    first: ir.Node  # MatMulIntegerToFloat

    def divide_columns(self, b: Builder) -> np.ndarray:
        """Make the first product divide its columns by their sizes; return these, [columns]."""
        values, scales = constant_of(self.first.inputs[1]), constant_of(self.first.inputs[3])
        assert values is not None and scales is not None
        sizes = np.sqrt((values.astype(np.float32) ** 2).mean(axis=0)) * scales
        sizes = np.where(sizes > 0, sizes, 1.0).astype(np.float32)
        assert self.first.inputs[3] is not None
        self.first.replace_input_with(3, b.constant(scales / sizes, f"{self.first.inputs[3].name}.divided"))
        return sizes

    def product(self, right: tuple[ir.Value, ir.Value], output: ir.Value, b: Builder) -> tuple[ir.Value, ir.Value]:
        """Return the product with the matrix `right`, (values, scales), and the value whose place it takes."""
        left, step, zero = self._in_bytes(b)
        factors = [left, b.scalar(1.0), zero, *self.stash.inputs, b.scalar(PRODUCT_SCALE), zero]
        both = b.op("QLinearMul", factors, dims_of(self.gradient), dtype=ir.DataType.UINT8, domain=MICROSOFT)
        return integer_product((both, step * PRODUCT_SCALE, zero), right, None, output, b)

    def _in_bytes(self, b: Builder) -> tuple[ir.Value, float, ir.Value]:
        """Return the gradient in bytes, what a step of them is, and the byte for zero."""
        x, matrix, x_scale, scales, zero = self.first.inputs[:5]
        assert x is not None and zero is not None
        step = scaled_length(int(dims_of(x)[-1])) * KEPT_DEVIATIONS / KEPT_STEPS
        symmetric = b.constant(np.array(0, np.int8), "zero.int8")
        inputs = [x, x_scale, zero, matrix, scales, symmetric, b.scalar(step), zero]
        return b.op("QLinearMatMul", inputs, dims_of(self.gradient), dtype=ir.DataType.UINT8), step, zero


def integer_product(
    left: tuple[ir.Value, float, ir.Value],
    right: tuple[ir.Value, ir.Value],
    bias: ir.Value | None,
    output: ir.Value,
    b: Builder,
) -> tuple[ir.Value, ir.Value]:
    """Multiply bytes (values, step, zero) with an int8 matrix (values, scales), in the place of `output`.

    Returns the product and the value whose place it takes. Where the one reader of `output` multiplies it by a factor a
    row [rows, 1], that is the reader's result: the kernel takes a left scale of that shape.
    """
    values, step, zero = left
    scale, replaced = b.scalar(step), output
    reader = only_user(output)
    factor = reader.inputs[1] if reader is not None and reader.op_type == "Mul" else None
    # Of a single column, a stash to multiply by would look like a factor a row.
    rows, width = dims_of(output)
    if bias is None and width != 1 and reader is not None and factor is not None and dims_of(factor) == (rows, 1):
        scale, replaced = b.mul(factor, scale), reader.outputs[0]
    inputs = [values, right[0], scale, right[1], zero, *([None, bias] if bias is not None else [])]
    return b.op("MatMulIntegerToFloat", inputs, dims_of(output), domain=MICROSOFT), replaced


def stashed_gradient(value: ir.Value | None) -> StashedGradient | None:
    """Return what makes the value, where it is a gradient in units of its rows times a stash, for one product alone."""
    node = produced_by(value, "Mul")
    if value is None or node is None or only_user(value) is None:
        return None
    gradient, stash = node.inputs[0], produced_by(node.inputs[1], "DequantizeLinear")
    first = produced_by(gradient, "MatMulIntegerToFloat")
    if gradient is None or stash is None or first is None or only_user(gradient) is None:
        return None
    return StashedGradient(gradient, stash, first)
