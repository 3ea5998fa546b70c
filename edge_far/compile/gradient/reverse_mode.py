"""Reverse-mode differentiation of a canonical forward graph, for the learners only.

Walks the forward nodes backwards. A node is visited only when a learner stands upstream of it, and for each input
only the gradients that lead to a learner are built. The rules are in rules.py, one an operator; composite
gradients (LayerNormalization, GELU, Softmax, dropout) stay single operators of the domain `edge_far` here, so that
later passes can choose what to keep for them, and lower.py expands them into stock operators.

Every learner p gets an input `acc.p` and an output `grad.p`: grad.p = acc.p + dloss/dp. The device binds both to the
same buffer, which accumulates micro-batches in place; where the gradient is a matrix product the addition is part of
the Gemm.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from edge_far.compile.gradient.rules import RULES
from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.notes import PassNote
from edge_far.errors import Unavailable

__all__ = ["ACCUMULATOR_PREFIX", "GRADIENT_PREFIX", "add_gradients"]

ACCUMULATOR_PREFIX = "acc."
GRADIENT_PREFIX = "grad."


def add_gradients(model: ir.Model, source: ir.Value, gradient: ir.Value, learners: Sequence[str]) -> PassNote:
    """Append the backward pass from `gradient` = dloss/dsource.

    `learners` names graph inputs. Raises Unavailable for an operator without a rule, naming operator and node.
    """
    note = PassNote("add_gradients")
    graph = model.graph
    by_name = {str(value.name): value for value in graph.inputs}
    parameters = {by_name[name] for name in learners}
    needed = _downstream_of(graph, parameters)
    gradients: dict[ir.Value, ir.Value] = {source: gradient}
    forward = list(graph)
    for node in reversed(forward):
        output = node.outputs[0]
        if output not in gradients or output not in needed:
            continue
        want = [value is not None and value in needed for value in node.inputs]
        rule = RULES.get((node.domain, node.op_type))
        if rule is None:
            raise Unavailable(
                f"no gradient rule for operator {node.domain + '.' if node.domain else ''}{node.op_type}",
                where=f"node {node.name}, output {output.name}",
                hint="add one to edge_far/compile/gradient/rules.py",
            )
        b = Builder(graph, "bwd")
        incoming = gradients[output]
        for index, value in rule(node, incoming, want, b):
            target = node.inputs[index]
            assert target is not None
            known = gradients.get(target)
            gradients[target] = value if known is None else b.add(known, value)
        if output not in parameters and output is not source:
            del gradients[output]
        graph.extend(b.nodes)
        note.changed("nodes differentiated")
    for name in learners:
        _accumulate(graph, by_name[name], gradients.get(by_name[name]))
    note.changed("learner gradients", len(learners))
    return note


def _downstream_of(graph: ir.Graph, parameters: set[ir.Value]) -> set[ir.Value]:
    """Return every value whose computation reads a learner, the learners included."""
    needed = set(parameters)
    for node in graph:
        if any(value in needed for value in node.inputs if value is not None):
            needed.add(node.outputs[0])
    return needed


def _accumulate(graph: ir.Graph, parameter: ir.Value, gradient: ir.Value | None) -> None:
    """Make `grad.p` = `acc.p` + gradient, inside the producing node where that is possible."""
    name, shape = str(parameter.name), parameter.shape
    accumulator = ir.Value(name=ACCUMULATOR_PREFIX + name, shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.append(accumulator)
    if gradient is None:
        raise Unavailable(f"the loss does not depend on the trained parameter {name}")
    producer = gradient.producer()
    assert producer is not None
    if producer.op_type in ("Gemm", "EmbeddingGrad") and len(producer.inputs) == 2 and not gradient.uses():
        producer.resize_inputs(3)
        producer.replace_input_with(2, accumulator)
        result = gradient
    else:
        b = Builder(graph, "bwd")
        result = b.add(accumulator, gradient)
        graph.insert_after(producer, b.nodes)
    result.name = GRADIENT_PREFIX + name
    graph.outputs.append(result)
