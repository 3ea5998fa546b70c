"""Cuts the forward graph in two where nothing before it learns: the prefix, and what a step begins with.

    input_ids, attention_mask, ... -> prefix -> hidden -> rest -> logits

Works on the graph as it was exported, while parameters still have their torch names: the cut is what the first node
reads that uses a parameter of the first module that learns. A dropout right before it stays with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edge_far.compile.graph.edits import remove_dead_nodes
from edge_far.errors import Unavailable

__all__ = ["HIDDEN", "cut_forward"]

HIDDEN = "hidden"
_SHAPE_SOURCE = "attention_mask"


def cut_forward(forward: ir.Model, modules: Sequence[str]) -> ir.Model:
    """Return the prefix of `forward` as a model of its own, and make `forward` begin with the input `hidden`.

    `modules` are the paths of the modules that learn. `hidden` is float32 [batch, sequence, width], or [batch, width]
    behind a pooling. Raises Unavailable where no single value is the border.
    """
    border = _border(forward.graph, modules)
    assert border.name is not None
    prefix = forward.clone()
    prefix.graph.meta.update(forward.graph.meta)
    outputs = {value.name: value for node in prefix.graph for value in node.outputs}
    prefix.graph.outputs[:] = [outputs[border.name]]
    remove_dead_nodes(prefix)
    _drop_unread_inputs(prefix.graph)
    outputs[border.name].name = HIDDEN

    hidden = ir.Value(name=HIDDEN, shape=border.shape, type=border.type)
    ir.convenience.replace_all_uses_with(border, hidden)
    remove_dead_nodes(forward)
    _take_shapes_from(forward.graph, _SHAPE_SOURCE)
    _drop_unread_inputs(forward.graph)
    forward.graph.inputs.insert(0, hidden)
    left = [value.name for value in forward.graph.inputs if value.name in ("input_ids", "token_type_ids")]
    if left:
        raise Unavailable(f"what learns reads {' and '.join(map(str, left))}", hint="use --method far or full")
    return prefix


def _border(graph: ir.Graph, modules: Sequence[str]) -> ir.Value:
    """Return the value that the first learning module reads."""
    starts = tuple(f"{path}." for path in modules)
    derived: set[ir.Value] = set()  # what depends on parameters alone, those of the modules among them
    for value in (*graph.initializers.values(), *graph.inputs):
        # Which heads of a mask a module takes is its own constant too, but no parameter.
        if value.name is not None and value.name.startswith(starts) and value.dtype == ir.DataType.FLOAT:
            derived.add(value)
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        if not any(value in derived for value in read):
            continue
        others = [value for value in read if value not in derived and not _is_constant(value)]
        if not others:
            derived.update(node.outputs)
            continue
        border = others[0]
        while (producer := border.producer()) is not None and producer.op_type == "Dropout":
            border = producer.inputs[0]
        if border.producer() is None or border.shape is None:
            break
        return border
    raise Unavailable("the place where learning begins was not found in the exported graph", where=", ".join(modules))


def _is_constant(value: ir.Value) -> bool:
    return value.const_value is not None


def _take_shapes_from(graph: ir.Graph, name: str) -> None:
    """Read batch and sequence from another input of the same two dimensions, instead of the ids or types."""
    inputs = {value.name: value for value in graph.inputs}
    for node in graph:
        if node.op_type == "Shape" and node.inputs[0] in (inputs.get("input_ids"), inputs.get("token_type_ids")):
            node.replace_input_with(0, inputs[name])


def _drop_unread_inputs(graph: ir.Graph) -> None:
    graph.inputs[:] = [value for value in graph.inputs if value.uses()]
