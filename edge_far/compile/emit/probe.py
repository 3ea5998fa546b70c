"""Builds probe.onnx: one operator of every kernel, for the device to time by itself.

Of the operators of a kernel it is the one with the most work in all of the bundle's graphs. Activations and learners
become inputs, shared by operators that read the same shape; what computes a shape that an operator asks for comes
along; frozen weights are the bundle's own, so the probe weighs a few KB. A Shape behind each operator takes its output,
which is freed at once. The device measures and keeps the times (device/planning/machine_speed.py).
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from edge_far.bundles.manifest import ProbedOperator
from edge_far.compile.emit.costs import NodeCost, node_cost, polynomial
from edge_far.compile.graph.sizes import dims_of

__all__ = ["build_probe"]

# Where the work of operators is compared.
_BATCH, _SEQUENCE = 16, 128


def build_probe(models: Iterable[ir.Model]) -> tuple[ir.Model, tuple[ProbedOperator, ...]]:
    """Return the probe of several graphs, and its operators in the order of its outputs."""
    models = list(models)
    largest: dict[str, tuple[NodeCost, ir.Node]] = {}
    for model in models:
        for node in model.graph:
            cost = node_cost(node)
            if cost.work is None:
                continue
            known = largest.get(cost.kernel)
            if known is None or _work(cost) > _work(known[0]):
                largest[cost.kernel] = (cost, node)
    opsets: dict[str, int] = {}
    for model in models:
        for domain, version in model.graph.opset_imports.items():
            opsets[domain] = max(version, opsets.get(domain, 0))
    probe = _Probe(opsets)
    operators = []
    for number, (kernel, (cost, node)) in enumerate(sorted(largest.items())):
        probe.add(node, f"k{number}")
        operators.append(ProbedOperator(kernel, polynomial(cost.work), polynomial(cost.size)))
    return ir.Model(probe.graph, ir_version=10), tuple(operators)


def _work(cost: NodeCost) -> float:
    return 0.0 if cost.work is None else cost.work.at(_BATCH, _SEQUENCE)


class _Probe:
    """The graph while it is made."""

    def __init__(self, opsets: dict[str, int]) -> None:
        self.graph = ir.Graph([], [], nodes=[], name="probe", opset_imports=dict(opsets))
        self._values: dict[tuple[object, ...], ir.Value] = {}
        self._shapes: dict[ir.Value, ir.Value] = {}

    def add(self, node: ir.Node, name: str) -> None:
        """Add a copy of a node and the Shape of its first output."""
        copy = self._copy(node, name)
        shape = ir.node("Shape", [copy.outputs[0]])
        shape.name, shape.outputs[0].name = f"{name}.shape", f"{name}.out"
        shape.outputs[0].shape = ir.Shape((len(dims_of(node.outputs[0])),))
        shape.outputs[0].dtype = ir.DataType.INT64
        self.graph.append(shape)
        self.graph.outputs.append(shape.outputs[0])

    def _copy(self, node: ir.Node, name: str) -> ir.Node:
        seen: dict[tuple[object, ...], int] = {}
        inputs = [None if value is None else self._input(value, seen) for value in node.inputs]
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            [ir.Attr(key, attribute.type, attribute.value) for key, attribute in node.attributes.items()],
            num_outputs=len(node.outputs),
            name=name,
        )
        for index, (old, new) in enumerate(zip(node.outputs, copy.outputs, strict=True)):
            new.name, new.shape, new.type = f"{name}.{index}" if old.name else "", old.shape, old.type
        self.graph.append(copy)
        return copy

    def _input(self, value: ir.Value, seen: dict[tuple[object, ...], int]) -> ir.Value:
        """Return the same constant, or an input of the same shape and type, another one for each use in a node."""
        if value.const_value is not None:
            return self._constant(value)
        dims = dims_of(value)
        producer = value.producer()
        if producer is not None and value.dtype == ir.DataType.INT64 and all(isinstance(dim, int) for dim in dims):
            if value not in self._shapes:
                copy = self._copy(producer, f"shape.{len(self._shapes)}.{producer.name}")
                self._shapes |= dict(zip(producer.outputs, copy.outputs, strict=True))
            return self._shapes[value]
        kind = (value.dtype, *dims)
        use = seen.get(kind, 0)
        seen[kind] = use + 1
        key = (use, *kind)
        if key not in self._values:
            name = f"in.{len(self._values)}"
            self._values[key] = ir.Value(name=name, shape=ir.Shape(dims), type=value.type)
            self.graph.inputs.append(self._values[key])
        return self._values[key]

    def _constant(self, value: ir.Value) -> ir.Value:
        name = str(value.name)
        known = self.graph.initializers.get(name)
        if known is not None and known.const_value is value.const_value:
            return known
        if known is not None:
            name = f"{name}.{len(self.graph.initializers)}"
        copy = ir.Value(name=name, shape=value.shape, type=value.type, const_value=value.const_value)
        self.graph.initializers[name] = copy
        return copy
