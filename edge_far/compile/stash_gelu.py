"""Keeps of a non-learner's GELU only its derivative, in 8 bits, instead of the pre-activation in 32.

The backward pass of a frozen branch needs dy * GELU'(x) and nothing else of x. The derivative lies in [-0.13, 1.13], so
uint8 with a fixed scale has a rounding error of at most 0.0025. It is computed in the forward pass, where x is at hand
and GELU(x) too: (GELU(x + d) - GELU(x)) / d with d = 1/512 is one more GELU and a subtraction, a third of the memory
traffic of the formula; its own error, at most 0.0011 (half of d times the largest second derivative, 0.80, and the
rounding of the subtraction), stays below that of the 8 bits. Branches of learners are left exact: their x is small, and
their gradients are what is trained.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_far.compile.builder import MICROSOFT, Builder, constant_of
from edge_far.compile.graphs import insert_before, remove_dead_nodes, replace_value
from edge_far.compile.notes import PassNote
from edge_far.compile.sizes import dims_of

__all__ = ["DERIVATIVE_SCALE", "DERIVATIVE_ZERO", "DIFFERENCE", "stash_gelu_derivatives"]

# GELU' runs from -0.12904 (at x = -1.41421) to 1.12904 (at 1.41421): 255 steps cover [-0.13, 1.13] with zero on a step.
DERIVATIVE_SCALE = 1.26 / 254
DERIVATIVE_ZERO = 27
DIFFERENCE = 2.0**-9


def stash_gelu_derivatives(model: ir.Model) -> PassNote:
    """Rewrite GeluGrad(dy, x) of frozen branches as dy * dequantised(quantised(GELU'(x)))."""
    note = PassNote("stash_gelu_derivatives")
    graph = model.graph
    for node in [node for node in graph if node.op_type == "GeluGrad"]:
        dy, x = node.inputs[0], node.inputs[1]
        assert dy is not None and x is not None
        if not _is_frozen_product(x):
            note.refuse(f"{x.name}: a learner's pre-activation stays exact")
            continue
        gelu = next(user for user, _ in x.uses() if user.op_type == "Gelu")
        forward = Builder(graph, "stash")
        zero = forward.constant(np.array(DERIVATIVE_ZERO, np.uint8), "gelu_derivative.zero")
        width = dims_of(x)[-1]
        shift = forward.constant(np.full(width, DIFFERENCE, np.float32), f"gelu_derivative.shift.{width}")
        shifted = forward.op("BiasGelu", [x, shift], dims_of(x), domain=MICROSOFT)
        rise = forward.sub(shifted, gelu.outputs[0])
        steps = forward.constant(np.array(DERIVATIVE_SCALE * DIFFERENCE, np.float32), "gelu_derivative.rise")
        stash = forward.op("QuantizeLinear", [rise, steps, zero], dims_of(x), dtype=ir.DataType.UINT8)
        graph.insert_after(gelu, forward.nodes)
        backward = Builder(graph, "stash")
        scale = backward.constant(np.array(DERIVATIVE_SCALE, np.float32), "gelu_derivative.scale")
        restored = backward.op("DequantizeLinear", [stash, scale, zero], dims_of(x))
        result = backward.mul(dy, restored)
        insert_before(graph, node, backward.nodes)
        replace_value(node.outputs[0], result)
        note.changed("pre-activations kept as 8-bit derivatives")
    remove_dead_nodes(model)
    return note


def _is_frozen_product(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Gemm" and constant_of(producer.inputs[1]) is not None
