"""Brings the rows of a frozen product's gradient to one size before they are quantised.

Rows of dy differ by orders of magnitude: the first token of the last blocks carries most of the loss, padding none.
The branch dx = ((dy @ w2.T) * gelu') @ w1.T is linear in each row, so rows are divided by their size before the first
product and multiplied by it after the second: exact in real numbers, and per-row precision for int8. The projections of
frozen attention heads are single products, of which the same is true.

The size is ROW_SIZE_RMS times the root mean square, or the length, where that is less. Divided by it all rows have one
length, which says how large their products become (stashed_gradients.py); the largest magnitude would not. A number of
a row of 768 exceeds the row's size where it is more than 0.29 of the row's length: it is clipped. A LayerNormalization
with one gamma more than about eight times the others makes such rows.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edge_far.compile.graph.builder import Builder, constant_of
from edge_far.compile.graph.edits import insert_before
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of

__all__ = ["SMALLEST_ROW", "multiply_users", "scale_gradient_rows", "scaled_length"]

ROW_SIZE_RMS = 8.0

# Keeps a row of zeros (padding) at zero instead of dividing by it.
SMALLEST_ROW = 1e-30


def scale_gradient_rows(model: ir.Model) -> PassNote:
    """Insert the scaling around each pair of frozen backward products, and around each that stands alone."""
    note = PassNote("scale_gradient_rows")
    graph = model.graph
    products = [node for node in graph if _is_backward_product(node)]
    partners = {first: _partner(first) for first in products}
    seconds = set(partners.values())
    for first in [node for node in products if node not in seconds]:
        last = partners[first] or first
        dy = first.inputs[0]
        assert dy is not None
        b = Builder(graph, "rowscale")
        sizes = _row_sizes(dy, b)
        scaled = b.binary("Div", dy, sizes)
        insert_before(graph, first, b.nodes)
        first.replace_input_with(0, scaled)
        multiply_users(graph, last, sizes)
        note.changed("frozen products scaled by rows" if last is first else "frozen branches scaled by rows")
    return note


def _row_sizes(value: ir.Value, b: Builder) -> ir.Value:
    rows, width = dims_of(value)
    length = b.reduce("ReduceL2", value, -1, keepdims=True)
    return b.op("Max", [b.mul(length, b.scalar(1 / scaled_length(int(width)))), b.scalar(SMALLEST_ROW)], (rows, 1))


def scaled_length(width: int) -> float:
    """Return how long a row of `width` numbers is, once divided by its size: at least 1, where nothing is clipped."""
    return float(max(1.0, width**0.5 / ROW_SIZE_RMS))


def multiply_users(
    graph: ir.Graph,
    node: ir.Node,
    sizes: ir.Value,
    bias: ir.Value | None = None,
    add_more: Callable[[ir.Value, Builder], ir.Value] | None = None,
) -> None:
    """Make the users of a node's output read it times `sizes`, plus `bias`, plus what `add_more` adds."""
    output = node.outputs[0]
    users = list(output.uses())
    b = Builder(graph, "rowscale")
    restored = b.mul(output, sizes)
    if bias is not None:
        restored = b.add(restored, bias)
    if add_more is not None:
        restored = add_more(restored, b)
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
        if node.op_type not in ("Mul", "GeluGrad", "SiluGrad"):
            return None
    return None
