"""Makes a sum and the LayerNormalization that alone reads it one operator: com.microsoft SkipLayerNormalization.

That operator does not return the statistics which a backward pass reads, so this is for what has none: the embeddings'
where they are frozen, and all of the inference graph's.
"""

from __future__ import annotations

import onnx_ir as ir

from edge_far.compile.graph.builder import MICROSOFT, Builder
from edge_far.compile.graph.edits import insert_before, only_user, produced_by, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of

__all__ = ["fuse_normalised_sums"]

EPSILON = 1e-5  # LayerNormalization's default


def fuse_normalised_sums(model: ir.Model) -> PassNote:
    """Fuse every such pair in place; the sum may be reshaped to rows in between."""
    note = PassNote("fuse_normalised_sums")
    graph = model.graph
    for norm in [node for node in graph if node.op_type == "LayerNormalization"]:
        if any(value.uses() for value in norm.outputs[1:]):
            note.refuse(f"{norm.name}: the backward pass reads its statistics")
            continue
        source = norm.inputs[0]
        reshape = produced_by(source, "Reshape")
        total = produced_by(reshape.inputs[0] if reshape is not None else source, "Add")
        if source is None or total is None or not _alone(total, reshape) or not _adds_rows(total):
            continue
        b = Builder(graph, "norm")
        dims = dims_of(total.outputs[0])
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else EPSILON
        inputs = [*total.inputs, *norm.inputs[1:3]]
        result = b.op("SkipLayerNormalization", inputs, dims, domain=MICROSOFT, epsilon=epsilon)
        if reshape is not None:
            result = b.op("Reshape", [result, reshape.inputs[1]], dims_of(source))
        insert_before(graph, norm, b.nodes)
        replace_value(norm.outputs[0], result)
        note.changed("sums inside a normalisation")
    remove_dead_nodes(model)
    return note


def _alone(total: ir.Node, reshape: ir.Node | None) -> bool:
    """Say whether the normalisation alone reads the sum, through the reshape if there is one."""
    values = [total.outputs[0], *(reshape.outputs[:1] if reshape is not None else ())]
    return all(only_user(value) is not None and not value.is_graph_output() for value in values)


def _adds_rows(total: ir.Node) -> bool:
    """Say whether the operator takes these addends: of one shape, or the second the same for the whole batch."""
    left, right = total.inputs
    if left is None or right is None or len(dims_of(left)) < 2:
        return False
    dims = dims_of(left)
    return dims_of(right) in (dims, (1, *dims[1:]) if len(dims) == 3 else dims)
