"""Bytes moved, against a count over the arrays that onnxruntime really made."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
import onnx_ir as ir

from edge_far.bench.work.traffic import graph_bytes, step_bytes
from edge_far.bundles.bundle import Bundle
from edge_far.compile.graph.builder import Builder
from tests.stock_runtime import run_on_stock_runtime
from tests.tiny_graphs import INT64, make_graph

pytestmark = pytest.mark.host

FREE = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Shape", "Size"}
SELECTORS = {"Gather", "Slice", "GatherElements", "GatherND"}


def brute_force(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> int:
    """Run a model with every value as an output; add up the arrays that each node reads and writes."""
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    known |= {name: np.asarray(array) for name, array in feeds.items()}
    names = [name for node in proto.graph.node for name in node.output if name]
    present = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    known |= run_on_stock_runtime(proto.SerializeToString(), feeds)
    total = 0
    for node in proto.graph.node:
        if node.op_type in FREE:
            continue
        read = [known[name].nbytes for name in node.input if name]
        written = [known[name].nbytes for name in node.output if name]
        if node.op_type in SELECTORS:
            read[0] = written[0]
        total += sum(read) + sum(written)
    return total


def test_counts_a_tiny_graph_by_hand() -> None:
    def build(builder: Builder, ids: ir.Value, table: ir.Value, weight: ir.Value) -> ir.Value:
        rows = builder.op("Gather", [table, ids], ("batch", "sequence", 8), axis=0)
        flat = builder.reshape_to(rows, ("batch*sequence", 8))
        return builder.gemm(flat, weight)

    inputs = {"ids": (("batch", "sequence"), INT64), "table": (100, 8), "weight": (8, 3)}
    model = make_graph(inputs, build)
    gather = 2 * 5 * 8 + 2 * (2 * 5 * 8 * 4)  # ids, the rows read, the rows written; not the table of 100 rows
    gemm = 4 * (2 * 5 * 8 + 8 * 3 + 2 * 5 * 3)
    assert graph_bytes(model.graph).at(2, 5) == gather + gemm


@pytest.mark.parametrize("name", ["bert-r10-2", "bert-r40-77-embeddings", "roberta-r10-5-int8", "tiny-int8"])
@pytest.mark.parametrize(("batch", "length"), [(1, 8), (3, 24)])
def test_equals_the_arrays_of_a_real_step(
    tiny_bundle: Callable[[str], Bundle], name: str, batch: int, length: int
) -> None:
    bundle = tiny_bundle(name)
    path = bundle.path("portable/step.onnx")
    proto = onnx.load(path)
    sizes = {"batch": batch, "sequence": length, "batch*sequence": batch * length}
    random = np.random.default_rng(0)
    feeds = {}
    for value in proto.graph.input:
        tensor = value.type.tensor_type
        shape = [d.dim_value or _evaluate(d.dim_param, sizes) for d in tensor.shape.dim]
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        ints = np.issubdtype(kind, np.integer)
        feeds[value.name] = random.integers(0, 2, shape).astype(kind) if ints else random.random(shape).astype(kind)
    expected = brute_force(proto, feeds)
    assert graph_bytes(ir.load(path).graph).at(batch, length) == pytest.approx(expected, rel=0, abs=0)


def test_a_step_is_its_micro_batches_and_the_optimiser(tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = tiny_bundle("bert-r10-2")
    path = bundle.path("portable/step.onnx")
    size = graph_bytes(ir.load(path).graph)
    graphs = 2 * size.at(3, 16) + size.at(1, 16)
    # AdamW in float32: the norm reads a gradient; the update reads parameter, gradient, two moments and writes all but
    # the gradient, which is cleared. In 8 bits: two bytes of moments instead of eight.
    assert step_bytes(path, 1000, 8000, batch=7, micro_batch=3, length=16) == graphs + 4 * (1 + 4 + 3 + 1) * 1000
    assert step_bytes(path, 1000, 2000, batch=7, micro_batch=3, length=16) == graphs + (4 * 5 + 2 * 2) * 1000
    assert step_bytes(path, 0, 0, batch=6, micro_batch=3, length=16) == 2 * size.at(3, 16)


def test_freezing_moves_fewer_bytes(tiny_bundle: Callable[[str], Bundle]) -> None:
    def moved(name: str) -> float:
        bundle = tiny_bundle(name)
        trained = bundle.manifest.trained_parameters
        return step_bytes(bundle.path("portable/step.onnx"), trained, 8 * trained, 4, 4, 16)

    assert moved("roberta-r10-2") < moved("roberta-r100-77")


def _evaluate(dim: str, sizes: dict[str, int]) -> int:
    product = 1
    for factor in dim.split("*"):
        top, _, divisor = factor.partition("/")
        product *= sizes.get(top, 0) // int(divisor or 1) if top in sizes else int(top)
    return product
