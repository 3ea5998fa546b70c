"""Predicted activation peaks against a simulation on real shapes, and hand-made cases of each rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.sizes import dims_of
from edge_far.compile.memory.liveness import activation_peaks
from tests.stock_runtime import run_on_stock_runtime
from tests.tiny_cases import Oracle, cases
from tests.tiny_graphs import FLOAT, UINT8, make_graph

pytestmark = pytest.mark.host

VIEWS = {"Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"}


def peak(graph: ir.Graph, batch: int, sequence: int) -> float:
    return max(size.at(batch, sequence) for size in activation_peaks(graph))


def chain(build: Callable[[Builder, ir.Value], ir.Value]) -> ir.Graph:
    return make_graph({"x": (("batch", 256), FLOAT)}, build).graph


def test_a_value_is_freed_after_its_last_reader() -> None:
    """Each Exp needs its input's 1 KiB a row and its own; what came before is free."""
    graph = chain(
        lambda b, x: b.reduce("ReduceSum", b.unary("Exp", b.unary("Exp", b.unary("Exp", x))), 0, keepdims=False)
    )
    assert peak(graph, 2, 8) == 2 * 2048


def test_nothing_is_overwritten_and_outputs_are_not_counted() -> None:
    graph = chain(lambda b, x: b.unary("Exp", b.add(b.add(b.unary("Exp", x), x), x)))
    assert peak(graph, 2, 8) == 2 * 2048


def test_a_value_with_a_later_reader_is_held() -> None:
    def build(b: Builder, x: ir.Value) -> ir.Value:
        kept = b.unary("Exp", x)
        return b.unary("Exp", b.mul(b.add(kept, x), kept))

    assert peak(chain(build), 2, 8) == 3 * 2048


def test_a_value_without_a_reader_is_held_by_its_own_node_alone() -> None:
    def build(b: Builder, x: ir.Value) -> ir.Value:
        b.unary("Neg", x)
        return b.unary("Exp", b.unary("Exp", x))

    assert peak(chain(build), 2, 8) == 2048


def test_reshapes_share_their_inputs_buffer() -> None:
    def build(b: Builder, x: ir.Value) -> ir.Value:
        active = b.unary("Exp", x)
        return b.unary("Neg", b.reshape_to(active, ("batch", 16, 16)))

    assert peak(chain(build), 2, 8) == 2048


def test_bytes_of_small_types() -> None:
    graph = chain(lambda b, x: b.cast(b.cast(x, UINT8), FLOAT))
    assert peak(graph, 2, 8) == 512


def read_shapes(path: Path, batch_number: int, oracle: Oracle, learners: dict[str, np.ndarray]) -> dict[str, int]:
    """Run a graph with every computed value as an output; return their sizes in bytes."""
    model = ir.load(path)
    graph = model.graph
    known = set(graph.outputs)
    graph.outputs.extend(v for node in graph for v in node.outputs if v.name and v not in known)
    batch = oracle.batch(batch_number)
    rows, length = batch.input_ids.shape
    sizes = {"batch": rows, "sequence": length, "sequence/8": length // 8, "batch*sequence": rows * length}
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        name = str(value.name)
        given = getattr(batch, name, None) if name in type(batch).__slots__ else None
        parameter = learners.get(name.removeprefix("acc."))
        if given is not None or parameter is not None:
            feeds[name] = given if given is not None else parameter
        elif name == "loss_scale":
            feeds[name] = np.array(1, np.float32)
        else:
            shape = [sizes[dim] if isinstance(dim, str) else dim for dim in dims_of(value)]
            feeds[name] = np.ones(shape, np.uint8 if value.dtype == UINT8 else np.float32)
    for value in graph.initializers.values():  # those in weights.bin come inside
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy(), name=value.name)
    found = run_on_stock_runtime(ir.to_proto(model).SerializeToString(), feeds)
    return {name: array.nbytes for name, array in found.items()}


def simulate(graph: ir.Graph, nbytes: dict[str, int], length: int) -> int:
    """Walk the graph with real sizes; return the peak in bytes. Written apart from the module: by spans of nodes."""
    order = list(graph)
    outside = {v.name for v in (*graph.inputs, *graph.outputs, *graph.initializers.values())}
    base: dict[str, str] = {}
    for node in order:
        if node.op_type in VIEWS:
            base[node.outputs[0].name] = base.get(node.inputs[0].name, node.inputs[0].name)
    final = {base.get(v.name, v.name): step for step, n in enumerate(order) for v in n.inputs if v is not None}
    spans = [
        (nbytes[value.name], step, final.get(value.name, step))
        for step, node in enumerate(order)
        for value in node.outputs
        if value.name and value.name not in outside and value.name not in base
    ]
    held = [sum(size for size, first, last in spans if first <= step <= last) for step in range(len(order))]
    return max(size + scratch(node, nbytes, length) for size, node in zip(held, order, strict=True))


def scratch(node: ir.Node, nbytes: dict[str, int], length: int) -> int:
    """Return what a kernel takes besides its values, by benchmarks/kernel_scratch.py."""
    if node.op_type == "BiasGelu":
        return nbytes[node.outputs[0].name]
    if node.op_type == "DynamicQuantizeMatMul":
        return nbytes[node.inputs[0].name] // 4
    if node.op_type == "QLinearMatMul":  # bytes out of 32 bits
        return 4 * nbytes[node.outputs[0].name]
    if node.op_type == "Attention":
        query = node.inputs[0]
        width = int(dims_of(query)[-1]) // node.attributes["q_num_heads"].as_int()
        return nbytes[query.name] // width * length  # the weights: as many rows as queries, a column a token
    return 0


@pytest.mark.parametrize("name", [case.name for case in cases(cut=False)])
def test_prediction_equals_a_simulation_with_real_shapes(name: str, tiny_bundle, oracle) -> None:
    from edge_far.bundles.arrays import read_arrays

    bundle, expected = tiny_bundle(name), oracle(name)
    learners = read_arrays(bundle.path("learners.safetensors"))
    portable = bundle.manifest.portable
    for graph_name, polynomials in ((portable.steps[0].name, portable.steps[0].peaks), ("infer", portable.infer.peaks)):
        path = bundle.path(f"portable/{graph_name}.onnx")
        graph = ir.load(path).graph
        for number in (0, 1):
            rows, length = expected.batch(number).input_ids.shape
            predicted = max(sum(c * rows**b * length**s for b, s, c in size) for size in polynomials)
            assert predicted == simulate(graph, read_shapes(path, number, expected, learners), length)
