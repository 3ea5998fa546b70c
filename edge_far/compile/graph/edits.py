"""Small edits that every pass makes: insert nodes, redirect uses, drop what is dead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

__all__ = [
    "Use",
    "first_reader",
    "inputs_behind",
    "insert_before",
    "later_uses",
    "only_user",
    "places",
    "produced_by",
    "remove_dead_nodes",
    "replace_value",
    "used_values",
]

Use = tuple[ir.Node, int]  # a node that reads a value, and as which of its inputs


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


def produced_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that makes a value, where it is an operator of this type."""
    producer = value.producer() if value is not None else None
    return producer if producer is not None and producer.op_type == op_type else None


def inputs_behind(value: ir.Value) -> set[ir.Value]:
    """Return the inputs of the graph that a value is computed from, or that it is."""
    stack, seen = [value], {value}
    while stack:
        producer = stack.pop().producer()
        new = used_values([producer]) - seen if producer is not None else set()
        seen |= new
        stack += new
    return {at for at in seen if at.producer() is None and at.const_value is None}


def only_user(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a value, or None where there are more or none."""
    users = list(value.uses())
    return users[0].node if len(users) == 1 else None


def places(step: ir.Graph) -> tuple[dict[ir.Node, int], int]:
    """Return each node's place in a step graph, and that of the node that makes the loss: all behind is backward."""
    position = {node: index for index, node in enumerate(step)}
    loss = step.outputs[0].producer()
    return position, position[loss] if loss is not None else len(position)


def later_uses(value: ir.Value, position: Mapping[ir.Node, int], end: int) -> list[Use]:
    """Return what reads a value behind the place `end`; nodes without a place are new and do not count."""
    return [(user, index) for user, index in value.uses() if position.get(user, -1) > end]


def first_reader(uses: Sequence[Use], position: Mapping[ir.Node, int]) -> ir.Node:
    """Return the node of these uses that runs first."""
    return min((user for user, _ in uses), key=lambda user: position[user])
