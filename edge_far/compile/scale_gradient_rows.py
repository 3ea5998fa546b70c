"""Brings the rows of a frozen branch's gradient to one size before they are quantised with one scale a tensor.

Rows of dy differ by orders of magnitude: the first token of the last blocks carries most of the loss, padding none.
The branch dx = ((dy @ w2.T) * gelu') @ w1.T is linear in each row, so rows are divided by their largest magnitude
before the first product and multiplied by it after the second: exact in real numbers, and per-row precision for int8.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_far.compile.builder import Builder, constant_of
from edge_far.compile.graphs import insert_before
from edge_far.compile.notes import PassNote
from edge_far.compile.sizes import dims_of

__all__ = ["multiply_users", "row_sizes", "scale_gradient_rows"]

# Keeps a row of zeros (padding) at zero instead of dividing by it.
SMALLEST_ROW = 1e-30


def scale_gradient_rows(model: ir.Model) -> PassNote:
    """Insert the scaling around each pair of frozen backward products."""
    note = PassNote("scale_gradient_rows")
    graph = model.graph
    for first in [node for node in graph if _is_backward_product(node)]:
        second = _partner(first)
        if second is None:
            continue
        dy = first.inputs[0]
        assert dy is not None
        b = Builder(graph, "rowscale")
        sizes = row_sizes(dy, b)
        scaled = b.binary("Div", dy, sizes)
        insert_before(graph, first, b.nodes)
        first.replace_input_with(0, scaled)
        multiply_users(graph, second, sizes)
        note.changed("frozen branches scaled by rows")
    return note


def row_sizes(value: ir.Value, b: Builder) -> ir.Value:
    """Return the largest magnitude of each row, [rows, 1], at least SMALLEST_ROW."""
    last_axis = b.constant(np.array([-1], np.int64), "last_axis")
    dims = (dims_of(value)[0], 1)
    highest = b.op("ReduceMax", [value, last_axis], dims, keepdims=1)
    lowest = b.op("ReduceMin", [value, last_axis], dims, keepdims=1)
    return b.op("Max", [highest, b.unary("Neg", lowest), b.scalar(SMALLEST_ROW)], dims)


def multiply_users(graph: ir.Graph, node: ir.Node, sizes: ir.Value, bias: ir.Value | None = None) -> None:
    """Make the users of a node's output read it times `sizes`, plus `bias`."""
    output = node.outputs[0]
    users = list(output.uses())
    b = Builder(graph, "rowscale")
    restored = b.mul(output, sizes)
    if bias is not None:
        restored = b.add(restored, bias)
    graph.insert_after(node, b.nodes)
    for user, index in users:
        user.replace_input_with(index, restored)


def _is_backward_product(node: ir.Node) -> bool:
    """Gemm(gradient, frozen matrix, transposed): forward products read frozen matrices as they are."""
    frozen = node.op_type == "Gemm" and constant_of(node.inputs[1]) is not None
    return frozen and bool(node.attributes["transB"].as_int())


def _partner(first: ir.Node) -> ir.Node | None:
    """Return the second product of the branch: reached through elementwise operators with one user each."""
    node = first
    for _ in range(3):
        users = [user for user, _ in node.outputs[0].uses()]
        if len(users) != 1:
            return None
        node = users[0]
        if _is_backward_product(node):
            return node
        if node.op_type not in ("Mul", "GeluGrad"):
            return None
    return None
