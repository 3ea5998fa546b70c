"""Keeps of a non-learner's GELU, SiLU or ReLU only its derivative, in 8 bits, instead of its input or output in 32.

The backward pass of a frozen branch needs dy * GELU'(x) and nothing else of x. GELU'(x) - 1/2 is near
RISE * (sigmoid(SLOPE * x) - 1/2) - DECLINE * x for |x| < 2.7 and near its ends' value beyond. Quantising x to 8 bits
limits it to that range; the sigmoid of 8 bits is a table that ONNX Runtime looks up; so all of it is three operators on
bytes, where the formula takes ten on float32. The derivative so made is at most 0.0245 off, less than 0.01 by root mean
square over [-3, 3], and exact where the GELU is nearly off (tests/compile/precision/test_stash_gelu.py).
A SiLU's is the same curve, drawn out by about 1.7: its figures and its error are in CURVES. A ReLU's is 0 or 1: exact.

Branches of learners keep x, which is small there, and take (GELU(x + d) - GELU(x)) / d with d = 1/512: half the memory
traffic of the formula. It is at most 0.0011 off: half of d times the largest second derivative, 0.80, and the rounding
of the subtraction. A learner's SiLU keeps its formula, which is short.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import MICROSOFT, Builder, constant_of
from edge_far.compile.graph.edits import insert_before, only_user, produced_by, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of

__all__ = ["CURVES", "stash_gelu_derivatives"]

ZERO = 128
# QLinearAdd gives values about ZERO; 1/2 is so many steps above, so zero is so many below, the half step that 128 is
# above the middle of 255 included.
STEPS_TO_HALF = 101
DERIVATIVE_ZERO = ZERO - STEPS_TO_HALF
DIFFERENCE = 2.0**-9


@dataclass(frozen=True)
class Curve:
    """The figures of one function's derivative; it is at most `error` off."""

    operator: str
    rise: float
    slope: float
    decline: float
    x_step: float
    error: float

    @property
    def scale(self) -> float:
        """Return what a step of the stash is."""
        return (0.5 + self.rise * (ZERO / 255 - 0.5)) / STEPS_TO_HALF


# By the gradient's operator. Fitted to the table of 256 entries that they make: least root mean square of the error and
# a tenth of the largest, with zero as the value of the lower end. The GELU's over the pre-activations of
# all-MiniLM-L6-v2, the SiLU's over a normal distribution of deviation 1.5.
CURVES: Mapping[str, Curve] = {
    "GeluGrad": Curve("Gelu", 1.8827, 2.0841, 0.1575, 0.02164, error=0.0245),
    "SiluGrad": Curve("Silu", 1.7587, 1.3231, 0.0843, 0.03457, error=0.0415),
}


def stash_gelu_derivatives(model: ir.Model) -> PassNote:
    """Rewrite GeluGrad(dy, x) as dy * dequantised(GELU'(x) in 8 bits), or with a difference where x is a learner's.

    SiluGrad alike, without the difference, and ReluGrad(dy, y), exact.
    """
    note = PassNote("stash_gelu_derivatives")
    graph = model.graph
    for node in [node for node in graph if node.op_type == "ReluGrad"]:
        _stash_relu(graph, node, note)
    for node in [node for node in graph if node.op_type in CURVES]:
        curve = CURVES[node.op_type]
        dy, x = node.inputs[0], node.inputs[1]
        assert dy is not None and x is not None
        forward_node = next(user for user, _ in x.uses() if user.op_type == curve.operator)
        backward = Builder(graph, "stash")
        if _is_frozen_product(x):
            forward = Builder(graph, "stash")
            stash = _derivative(x, curve, forward)
            graph.insert_after(forward_node, forward.nodes)
            restored = backward.op("DequantizeLinear", [stash, *_scale_and_zero(curve, backward)], dims_of(x))
            result = backward.mul(dy, restored)
            note.changed("pre-activations kept as 8-bit derivatives")
        elif node.op_type != "GeluGrad":
            continue
        else:
            result = _times_difference(dy, x, forward_node.outputs[0], backward)
            note.changed("derivatives of learners as differences")
        insert_before(graph, node, backward.nodes)
        replace_value(node.outputs[0], result)
    remove_dead_nodes(model)
    return note


def _stash_relu(graph: ir.Graph, node: ir.Node, note: PassNote) -> None:
    """Rewrite ReluGrad(dy, y) of a non-learner as dy times 1 or 0, which is kept instead of y."""
    dy, y = node.inputs[0], node.inputs[1]
    relu = produced_by(y, "Relu")
    assert dy is not None and y is not None and relu is not None
    if not _is_frozen_product(relu.inputs[0]):
        return
    forward, backward = Builder(graph, "stash"), Builder(graph, "stash")
    positive = forward.op("Greater", [y, forward.scalar(0.0)], dims_of(y), dtype=ir.DataType.BOOL)
    stash = forward.cast(positive, ir.DataType.UINT8)
    graph.insert_after(relu, forward.nodes)
    zero = backward.constant(np.array(0, np.uint8), "zero.0")
    result = backward.mul(dy, backward.op("DequantizeLinear", [stash, backward.scalar(1.0), zero], dims_of(y)))
    insert_before(graph, node, backward.nodes)
    replace_value(node.outputs[0], result)
    note.changed("ReLUs kept as 8-bit derivatives")


def _derivative(x: ir.Value, curve: Curve, b: Builder) -> ir.Value:
    """Return the derivative at x in uint8.

    x is kept with its sign turned, by a negative scale, so that the line falls where the sigmoid rises: QLinearAdd
    adds with positive scales.
    """

    def quantised(op_type: str, inputs: list[ir.Value], domain: str = MICROSOFT) -> ir.Value:
        return b.op(op_type, inputs, dims_of(x), dtype=ir.DataType.UINT8, domain=domain)

    zero, lowest = b.constant(np.array(ZERO, np.uint8), "zero.128"), b.constant(np.array(0, np.uint8), "zero.0")
    turned = quantised("QuantizeLinear", [x, b.scalar(-curve.x_step), zero], domain="")
    steep = b.scalar(-curve.x_step * curve.slope)
    sigmoid = quantised("QLinearSigmoid", [turned, steep, zero, b.scalar(1 / 255), lowest])
    line = [turned, b.scalar(curve.x_step * curve.decline), zero]
    scale = _scale_and_zero(curve, b)[0]
    return quantised("QLinearAdd", [sigmoid, b.scalar(curve.rise / 255), zero, *line, scale, zero])


def _times_difference(dy: ir.Value, x: ir.Value, y: ir.Value, b: Builder) -> ir.Value:
    """Return dy * (GELU(x + d) - y) / d; the product that makes dy takes the factor 1 / d where it can."""
    width = int(dims_of(x)[-1])
    shift = b.constant(np.full(width, DIFFERENCE, np.float32), f"gelu_derivative.shift.{width}")
    rise = b.sub(b.op("BiasGelu", [x, shift], dims_of(x), domain=MICROSOFT), y)
    product = produced_by(dy, "Gemm")
    if product is None or only_user(dy) is None or len(product.inputs) > 2 or "alpha" in product.attributes:
        return b.mul(dy, b.mul(rise, b.scalar(1 / DIFFERENCE)))
    product.attributes["alpha"] = ir.AttrFloat32("alpha", 1 / DIFFERENCE)
    return b.mul(dy, rise)


def _scale_and_zero(curve: Curve, b: Builder) -> tuple[ir.Value, ir.Value]:
    scale = b.constant(np.array(curve.scale, np.float32), f"{curve.operator.lower()}_derivative.scale")
    return scale, b.constant(np.array(DERIVATIVE_ZERO, np.uint8), "derivative.zero")


def _is_frozen_product(value: ir.Value | None) -> bool:
    product = produced_by(value, "Gemm")
    return product is not None and constant_of(product.inputs[1]) is not None
