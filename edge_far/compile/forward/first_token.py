"""Computes only the first token's row of the last block where the head reads nothing else.

Keys and values of the last block still cover all tokens; its queries, attention rows, FFN and LayerNorms shrink from
[batch*sequence, ...] to [batch, ...]. Exact: those operators work on rows. A node is converted when every use of its
output is a row operand of a converted node; the boundary gets edge_far.FirstToken. A mask with a row a query, which
nothing trained is in, gets its first row there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import INTERNAL, SWAP_HEADS, Builder
from edge_far.compile.graph.edits import inputs_behind, insert_before, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import BATCH, SEQUENCE, TOKENS, Dim, dims_of

__all__ = ["compute_first_token_only"]

QUERIES = 2  # the axis of [batch, heads, queries, keys]
# Operators that work on rows, with the inputs that carry the rows.
_ROW_OPERANDS: dict[str, tuple[int, ...]] = {
    "LayerNormalization": (0,),
    "Gemm": (0,),
    "FusedMatMul": (0,),
    "Add": (0, 1),
    "Gelu": (0,),
    "TanhGelu": (0,),
    "Silu": (0,),
    "Mul": (0, 1),
    "Rotary": (0,),
    "Relu": (0,),
    "Tanh": (0,),
    "Dropout": (0,),
    "Softmax": (0,),
    "Reshape": (0,),
    "Transpose": (0,),
}


def compute_first_token_only(model: ir.Model) -> PassNote:
    """Shrink the last block in place; refuses where the head reads more than the first token."""
    note = PassNote("compute_first_token_only")
    graph = model.graph
    heads = [node for node in graph if node.op_type == "FirstToken"]
    if len(heads) != 1:
        note.refuse(f"{len(heads)} first-token selections")
        return note
    head = heads[0]
    converted = _convertible(graph, head)
    if not converted:
        note.refuse("the rows before the selection have other readers")
        return note
    rows: dict[ir.Value, ir.Value] = {}
    for node in [node for node in graph if node in converted]:
        builder = Builder(graph, "first")
        _convert(node, rows, builder)
        insert_before(graph, node, builder.nodes)
    source = head.inputs[0]
    assert source is not None
    replace_value(head.outputs[0], rows[source])
    note.changed("operators on first tokens only", len(converted))
    remove_dead_nodes(model)
    return note


def _row_axis(dims: tuple[Dim, ...]) -> int | None:
    """Return the axis that runs over (query) tokens: of [T, H], [B, S, A, d], [B or 1, A, S, x]; else None."""
    if dims and dims[0] == TOKENS:
        return 0
    if len(dims) == 4 and dims[0] in (BATCH, 1):
        return next((axis for axis in (1, 2) if dims[axis] == SEQUENCE), None)
    return None


def _shrunk(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    axis = _row_axis(dims)
    assert axis is not None
    return tuple((BATCH if dim == TOKENS else 1) if at == axis else dim for at, dim in enumerate(dims))


def _convertible(graph: ir.Graph, head: ir.Node) -> set[ir.Node]:
    converted: set[ir.Node] = set()
    for node in reversed(list(graph)):
        operands = _ROW_OPERANDS.get(node.op_type)
        if operands is None or _row_axis(dims_of(node.outputs[0])) is None or _moves_keys(node):
            continue
        uses = [use for value in node.outputs for use in value.uses()]
        if uses and all(
            user is head or (user in converted and index in _ROW_OPERANDS[user.op_type]) for user, index in uses
        ):
            converted.add(node)
    # The boundary can only be cut in rows of tokens: a node that would need another cut stays, and so do its sources.
    while stuck := {node for node in converted if not _may_shrink(node, converted, head)}:
        converted -= stuck
    return converted


def _moves_keys(node: ir.Node) -> bool:
    """Say whether a transposition is another than that of heads and tokens: its rows are others' columns."""
    return node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) != SWAP_HEADS


def _may_shrink(node: ir.Node, converted: set[ir.Node], head: ir.Node) -> bool:
    for index in _ROW_OPERANDS[node.op_type]:
        value = node.inputs[index]
        assert value is not None
        dims = dims_of(value)
        if value.producer() in converted or _row_axis(dims) in (None, 0):
            continue
        if _row_axis(dims) != QUERIES or _may_learn(value):
            return False
    return all(user is head or user in converted for value in node.outputs for user, _ in value.uses())


def _may_learn(value: ir.Value) -> bool:
    """Say whether parameters or hidden states are in a value."""
    return any(source.dtype == ir.DataType.FLOAT for source in inputs_behind(value))


def _first_row(value: ir.Value, b: Builder) -> ir.Value:
    """Return the first tokens of rows, or the first query's row of a mask [B or 1, A, S, S]."""
    if dims_of(value)[0] == TOKENS:
        return b.op("FirstToken", [value], (BATCH, dims_of(value)[-1]), domain=INTERNAL)
    first = b.constant(np.array([0], np.int64), "first_query")
    return b.op("Gather", [value, first], _shrunk(dims_of(value)), axis=QUERIES)


def _convert(node: ir.Node, rows: dict[ir.Value, ir.Value], b: Builder) -> None:
    inputs = list(node.inputs)
    for index in _ROW_OPERANDS[node.op_type]:
        value = inputs[index]
        assert value is not None
        if _row_axis(dims_of(value)) is None:
            continue  # broadcast over the queries: the mask
        if value not in rows:
            rows[value] = _first_row(value, b)
        inputs[index] = rows[value]
    shape = _shrunk(dims_of(node.outputs[0]))
    source = inputs[0]
    assert source is not None
    if node.op_type == "Reshape":
        rows[node.outputs[0]] = b.reshape_to(source, shape)
        return
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    outputs = [(shape, ir.DataType.FLOAT)] + [((BATCH, 1), ir.DataType.FLOAT)] * (len(node.outputs) - 1)
    rows[node.outputs[0]] = b.multi(node.op_type, inputs, outputs, domain=node.domain, **attributes)[0]
