"""Recomputes in the backward pass what is cheap to make again and large to keep; no block runs twice.

1. Attention weights [batch, heads, sequence, sequence] from queries, keys and mask: a product and a Softmax, a few per
   cent of an attention's work. They are the largest stash of long texts. The transposed queries and keys that the
   backward pass makes for itself serve both.
2. The output of a GELU or SiLU from its input, where the backward pass reads both: one pass over learners' numbers.

Works on a finished step graph. Gradients differ from those of the plain step by rounding alone: Softmax is the same
formula in another kernel.
"""

from __future__ import annotations

import onnx_ir as ir

from edge_far.compile.graph.builder import SWAP_HEADS, Builder
from edge_far.compile.graph.edits import (
    first_reader,
    insert_before,
    later_uses,
    places,
    remove_dead_nodes,
    replace_value,
)
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of

__all__ = ["recompute_cheap_values"]


def recompute_cheap_values(model: ir.Model) -> PassNote:
    """Apply both rules in place."""
    note = PassNote("recompute_cheap_values")
    graph = model.graph
    position, end = places(graph)
    for node in [node for node in graph if position[node] <= end]:
        if node.op_type == "Attention" and node.outputs[3].name:
            _recompute_weights(graph, node, position)
            note.changed("attention weights recomputed")
        elif node.op_type in ("Gelu", "QuickGelu") and _both_are_read(node, position, end):
            _recompute_activation(graph, node, position, end)
            note.changed("activations recomputed")
    remove_dead_nodes(model)
    return note


def _recompute_weights(graph: ir.Graph, attention: ir.Node, position: dict[ir.Node, int]) -> None:
    query, key, _, mask = attention.inputs[:4]
    weights = attention.outputs[3]
    assert query is not None and key is not None and mask is not None
    first = first_reader([(user, index) for user, index in weights.uses()], position)
    heads = attention.attributes["q_num_heads"].as_int()
    scale = attention.attributes["scale"].as_float()
    b = Builder(graph, "again")
    by_heads = [b.by_heads(value, heads) for value in (query, key)]
    scores = b.add(b.matmul(*by_heads, trans_right=True, alpha=scale), mask)
    again = b.unary("Softmax", scores, axis=-1)
    insert_before(graph, first, b.nodes)
    for value, new in zip((query, key), by_heads, strict=True):
        _use_instead(value, new)
    replace_value(weights, again)
    weights.name = ""


def _use_instead(source: ir.Value, transposed: ir.Value) -> None:
    """Make all later readers of the same transposition of `source` read the one that is there already."""
    for reshape, _ in list(source.uses()):
        if reshape.op_type != "Reshape":
            continue
        for user, _ in list(reshape.outputs[0].uses()):
            same = user.op_type == "Transpose" and tuple(user.attributes["perm"].as_ints()) == SWAP_HEADS
            if same and user.outputs[0] is not transposed and dims_of(user.outputs[0]) == dims_of(transposed):
                replace_value(user.outputs[0], transposed)


def _both_are_read(node: ir.Node, position: dict[ir.Node, int], end: int) -> bool:
    x = node.inputs[0]
    assert x is not None
    return all(later_uses(value, position, end) for value in (x, node.outputs[0]))


def _recompute_activation(graph: ir.Graph, node: ir.Node, position: dict[ir.Node, int], end: int) -> None:
    x = node.inputs[0]
    assert x is not None
    later = later_uses(node.outputs[0], position, end)
    b = Builder(graph, "again")
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    again = b.unary(node.op_type, x, domain=node.domain, **attributes)
    insert_before(graph, first_reader(later, position), b.nodes)
    for user, index in later:
        user.replace_input_with(index, again)
