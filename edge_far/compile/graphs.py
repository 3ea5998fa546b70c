"""Small edits that every pass makes: insert nodes, redirect uses, drop what is dead."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["insert_before", "remove_dead_nodes", "replace_value", "used_values"]


def insert_before(graph: ir.Graph, anchor: ir.Node, nodes: Iterable[ir.Node]) -> None:
    """Insert new nodes, in order, before `anchor`."""
    graph.insert_before(anchor, list(nodes))


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Make every user of `old`, graph outputs included, read `new`."""
    keep_name = old.is_graph_output()
    name = old.name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if keep_name:
        old.name = f"{name}.replaced"
        new.name = name


def remove_dead_nodes(model: ir.Model) -> int:
    """Remove nodes and initializers that nothing reads; return how many nodes went."""
    graph = model.graph
    outputs = set(graph.outputs)
    removed = 0
    for node in reversed(list(graph)):
        if not any(value in outputs or value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
            removed += 1
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in outputs:
            del graph.initializers[name]
    return removed


def used_values(nodes: Iterable[ir.Node]) -> set[ir.Value]:
    """Return every value that one of the nodes reads."""
    return {value for node in nodes for value in node.inputs if value is not None}
