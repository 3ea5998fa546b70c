"""Replaces BiasGelu by an addition and a GELU: one more pass over the tensor, and one tensor less while it runs.

The kernel of BiasGelu keeps its argument in memory of its own. An addition writes over a value that nothing reads after
it, so that GELU(x + d) costs no more than its result. For the step graphs that save memory.
"""

from __future__ import annotations

import onnx_ir as ir

from edge_far.compile.builder import Builder
from edge_far.compile.graphs import insert_before, remove_dead_nodes, replace_value
from edge_far.compile.notes import PassNote

__all__ = ["shift_in_place"]


def shift_in_place(model: ir.Model) -> PassNote:
    """Rewrite every BiasGelu(x, d) as Gelu(Add(x, d))."""
    note = PassNote("shift_in_place")
    for node in [node for node in model.graph if node.op_type == "BiasGelu"]:
        x, shift = node.inputs[0], node.inputs[1]
        assert x is not None and shift is not None
        b = Builder(model.graph, "shift")
        result = b.unary("Gelu", b.add(x, shift))
        insert_before(model.graph, node, b.nodes)
        replace_value(node.outputs[0], result)
        note.changed("shifts in place")
    remove_dead_nodes(model)
    return note
