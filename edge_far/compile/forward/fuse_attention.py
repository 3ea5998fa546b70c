"""Makes each attention of the forward graph one operator: ONNX's Attention (opset 23), which returns its weights too.

1. Transpose(q), Transpose(k), their scaled product, mask, Softmax, product with Transpose(v), Transpose back: seven
   passes over [batch, heads, sequence, sequence] or its inputs become one. The weights are an output, kept for the
   backward pass.
2. The mask is expanded from [batch, 1, 1, sequence] to one row a query, once for all blocks: the operator asks for it.
3. Refused where something stands between Softmax and product: dropout on the weights is not the operator's; and where
   something in the mask is trained.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import SWAP_HEADS, Builder
from edge_far.compile.graph.edits import (
    inputs_behind,
    insert_before,
    only_user,
    produced_by,
    remove_dead_nodes,
    replace_value,
)
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import BATCH, SEQUENCE, dims_of

__all__ = ["ATTENTION_OPSET", "WEIGHTS_AFTER_SOFTMAX", "drop_unused_weights", "fuse_attention"]

ATTENTION_OPSET = 23
# Attention's qk_matmul_output_mode: the fourth output is the softmax of the masked scores.
WEIGHTS_AFTER_SOFTMAX = 3


@dataclass(frozen=True)
class _Pattern:
    """The values of one attention: q [B, Q, A, d], k and v [B, S, A, d] as they were before their transpositions."""

    query: ir.Value
    key: ir.Value
    value: ir.Value
    mask: ir.Value
    scale: float
    result: ir.Value


def fuse_attention(model: ir.Model, trained: Collection[str] = ()) -> PassNote:
    """Apply rules 1 to 3 in place and raise the graph's opset to 23; `trained` names the parameters that learn."""
    note = PassNote("fuse_attention")
    graph = model.graph
    for softmax in [node for node in graph if node.op_type == "Softmax"]:
        pattern = _match(softmax)
        if pattern is None:
            note.refuse(f"{softmax.name}: not a plain attention (dropout of its weights?)")
            continue
        if any(source.name in trained for source in inputs_behind(pattern.mask)):
            note.refuse(f"{softmax.name}: its mask is trained")
            continue
        anchor = pattern.result.producer()
        assert anchor is not None
        b = Builder(graph, "attention")
        result = _attention(pattern, b)
        insert_before(graph, anchor, b.nodes)
        replace_value(pattern.result, result)
        note.changed("attentions in one operator")
    remove_dead_nodes(model)
    if note.changes:
        graph.opset_imports[""] = ATTENTION_OPSET
    return note


def _attention(pattern: _Pattern, b: Builder) -> ir.Value:
    batch, queries, heads, width = dims_of(pattern.query)
    sequence = dims_of(pattern.key)[1]
    assert isinstance(heads, int) and isinstance(width, int)
    parts = (pattern.query, pattern.key, pattern.value)
    query, key, value = (b.reshape_keeping(part, dims_of(part)[:2], (heads * width,)) for part in parts)
    one_row = dims_of(pattern.mask)[2] == 1
    mask = _expanded(pattern.mask, b) if one_row and queries != 1 else pattern.mask
    result, _, _, _ = b.multi(
        "Attention",
        [query, key, value, mask],
        [
            ((batch, queries, heads * width), ir.DataType.FLOAT),
            ((batch, heads, sequence, width), ir.DataType.FLOAT),
            ((batch, heads, sequence, width), ir.DataType.FLOAT),
            ((batch, heads, queries, sequence), ir.DataType.FLOAT),
        ],
        q_num_heads=heads,
        kv_num_heads=heads,
        scale=pattern.scale,
        qk_matmul_output_mode=WEIGHTS_AFTER_SOFTMAX,
    )
    attention = b.nodes[-1]
    # The present keys and values are not wanted: an empty name leaves an optional output out.
    for unused in attention.outputs[1:3]:
        unused.name = ""
    return b.reshape_keeping(result, (batch, queries), (heads, width))


def _expanded(mask: ir.Value, b: Builder) -> ir.Value:
    """Return [B, 1, 1, S] as [B, 1, S, S]; the common-subexpression pass keeps one of them."""
    length = b.input_shape(1, 2)
    one = b.constant(np.array([1], np.int64), "one")
    shape = b.op("Concat", [one, one, length, one], (4,), dtype=ir.DataType.INT64, axis=0)
    return b.op("Expand", [mask, shape], (BATCH, 1, SEQUENCE, SEQUENCE))


def drop_unused_weights(model: ir.Model) -> PassNote:
    """Leave out the weights' output where no backward pass reads it."""
    note = PassNote("drop_unused_weights")
    for node in model.graph:
        if node.op_type == "Attention" and not node.outputs[3].uses():
            node.outputs[3].name = ""
            note.changed("outputs left out")
    return note


def _match(softmax: ir.Node) -> _Pattern | None:
    """Return the attention around a Softmax, or None where the graph is another."""
    product = only_user(softmax.outputs[0])
    masked = produced_by(softmax.inputs[0], "Add")
    if product is None or product.op_type != "FusedMatMul" or masked is None:
        return None
    scores, mask = produced_by(masked.inputs[0], "FusedMatMul"), masked.inputs[1]
    back = only_user(product.outputs[0])
    if scores is None or mask is None or back is None or back.op_type != "Transpose" or not _swaps_heads(back):
        return None
    if not scores.attributes["transB"].as_int() or product.attributes["transB"].as_int():
        return None
    parts = [_before_transposition(value) for value in (*scores.inputs, product.inputs[1])]
    query, key, value = parts
    if query is None or key is None or value is None:
        return None
    scale = scores.attributes["alpha"].as_float()
    return _Pattern(query, key, value, mask, scale, back.outputs[0])


def _swaps_heads(node: ir.Node) -> bool:
    return tuple(node.attributes["perm"].as_ints()) == SWAP_HEADS


def _before_transposition(value: ir.Value | None) -> ir.Value | None:
    node = produced_by(value, "Transpose")
    return node.inputs[0] if node is not None and _swaps_heads(node) else None
