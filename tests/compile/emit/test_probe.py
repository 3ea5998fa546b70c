"""The probe graph: every kernel of a bundle's graphs once, small, without weights of its own, and it runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.bundles.bundle import Bundle
from edge_far.compile.emit.probe import build_probe
from tests.tiny_cases import cases
from tests.tiny_graphs import INT64, make_graph, operators, run_graph

pytestmark = pytest.mark.host


def test_the_largest_operator_of_each_kernel_and_shared_inputs() -> None:
    def build(b, x, y):
        small = b.op("Relu", [y], ("batch*sequence", 8))
        large = b.op("Relu", [x], ("batch*sequence", 64))
        return [small, b.mul(large, x), b.add(large, x)]

    model = make_graph({"x": ("batch*sequence", 64), "y": ("batch*sequence", 8)}, build)
    probe, probed = build_probe([model])
    assert [operator.kernel for operator in probed] == ["Add(Tn,Tn)", "Mul(Tn,Tn)", "Relu(Tn)"]
    assert probed[2].work == ((1, 1, 2 * 4.0 * 64),), "the larger of the two"
    assert operators(probe) == ["Add", "Shape", "Mul", "Shape", "Relu", "Shape"]
    assert [node.name for node in probe.graph][::2] == ["k0", "k1", "k2"]
    # Two inputs of [tokens, 64] serve all three operators, and no operator reads one twice.
    assert len(probe.graph.inputs) == 2
    assert all(len(set(node.inputs)) == len(node.inputs) for node in probe.graph)


@pytest.mark.parametrize("name", [case.name for case in cases(cut=False)])
def test_a_bundles_probe_covers_its_graphs_and_stores_nothing_twice(
    name: str, tiny_bundle: Callable[[str], Bundle]
) -> None:
    bundle = tiny_bundle(name)
    portable = bundle.manifest.portable
    probed = [operator.kernel for operator in portable.probe]
    needed = {cost.kernel for step in portable.steps for cost in step.costs if cost.work}
    needed |= {cost.kernel for cost in portable.infer.costs if cost.work}
    assert set(probed) == needed and len(probed) == len(needed)
    assert bundle.path("portable/probe.onnx").stat().st_size < 64 * 1024
    probe = ir.load(bundle.path("portable/probe.onnx")).graph
    regions = {
        (value.const_value.offset, value.const_value.length)
        for graph in (probe, *(ir.load(bundle.path(f"portable/{step.name}.onnx")).graph for step in portable.steps))
        for value in graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor) and graph is not probe
    } | {
        (value.const_value.offset, value.const_value.length)
        for value in ir.load(bundle.path("portable/infer.onnx")).graph.initializers.values()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    for value in probe.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            assert (value.const_value.offset, value.const_value.length) in regions


def test_shapes_that_an_operator_asks_for_are_computed() -> None:
    def build(b, ids, mask):
        one = b.constant(np.array([1], np.int64), "one")
        shape = b.op("Concat", [one, one, b.input_shape(1, 2), one], (4,), dtype=INT64, axis=0)
        return b.op("Expand", [mask, shape], ("batch", 1, "sequence", "sequence"))

    inputs = {"ids": (("batch", "sequence"), INT64), "mask": ("batch", 1, 1, "sequence")}
    probe, probed = build_probe([make_graph(inputs, build)])
    assert [operator.kernel for operator in probed] == ["Expand(b11s,int64:n)"]
    assert operators(probe) == ["Shape", "Concat", "Expand", "Shape"]
    names = {str(value.name): value for value in probe.graph.inputs}
    assert len(names) == 2
    shapes = {ir.DataType.INT64: (3, 5), ir.DataType.FLOAT: (3, 1, 1, 5)}
    arrays = {name: np.zeros(shapes[value.dtype], value.dtype.numpy()) for name, value in names.items()}
    (found,) = run_graph(probe, **arrays)
    assert found.tolist() == [3, 1, 5, 5]
