"""Lets matrix products add to what is there already, instead of an addition of their own.

1. A tree of additions of equal shapes (the two halves of a split FFN and the residual; the gradients of queries, keys
   and values) is summed in the order in which its terms are computed.
2. A term that is a Gemm without a bias takes the sum so far as its third operand; any other term is added.
"""

from __future__ import annotations

import onnx_ir as ir

from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.edits import remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of

__all__ = ["fuse_additions"]


def fuse_additions(model: ir.Model) -> PassNote:
    """Apply both rules in place to every tree of additions that a Gemm can take part in."""
    note = PassNote("fuse_additions")
    graph = model.graph
    position = {node: index for index, node in enumerate(graph)}
    for root in [node for node in graph if _is_sum(node) and not _inside_a_tree(node)]:
        terms = sorted(_terms(root), key=lambda value: _computed_at(value, position))
        if not any(_takes_a_sum(value) for value in terms[1:]):
            continue
        total = terms[0]
        for term in terms[1:]:
            producer = term.producer()
            if producer is not None and _takes_a_sum(term):
                producer.resize_inputs(3)
                producer.replace_input_with(2, total)
                total = term
                note.changed("additions inside a product")
                continue
            later = max((total, term), key=lambda value: _computed_at(value, position)).producer()
            b = Builder(graph, "sum")
            total = b.add(total, term)
            if later is None:
                graph.insert_before(graph[0], b.nodes)
            else:
                graph.insert_after(later, b.nodes)
            position[b.nodes[0]] = position[later] if later is not None else -1
        replace_value(root.outputs[0], total)
    remove_dead_nodes(model)
    return note


def _is_sum(node: ir.Node) -> bool:
    if node.op_type != "Add" or node.domain != "":
        return False
    dims = dims_of(node.outputs[0])
    return len(dims) == 2 and all(value is not None and dims_of(value) == dims for value in node.inputs)


def _inside_a_tree(node: ir.Node) -> bool:
    """Say whether the node's sum is read by one addition alone, which then includes it."""
    users = list(node.outputs[0].uses())
    return len(users) == 1 and _is_sum(users[0].node) and not node.outputs[0].is_graph_output()


def _terms(node: ir.Node) -> list[ir.Value]:
    terms: list[ir.Value] = []
    for value in node.inputs:
        assert value is not None
        producer = value.producer()
        if producer is not None and _is_sum(producer) and _inside_a_tree(producer):
            terms += _terms(producer)
        else:
            terms.append(value)
    return terms


def _computed_at(value: ir.Value, position: dict[ir.Node, int]) -> int:
    producer = value.producer()
    return position[producer] if producer is not None else -1


def _takes_a_sum(value: ir.Value) -> bool:
    """Say whether the value is a Gemm without a bias that only this sum reads."""
    producer = value.producer()
    if producer is None or producer.op_type != "Gemm" or len(producer.inputs) > 2 or value.is_graph_output():
        return False
    return len(list(value.uses())) == 1
