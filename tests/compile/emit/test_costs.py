"""Costs of a graph: kernels and polynomials of known operators, and sums against an independent count."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import OperatorCost
from edge_far.compile.emit.costs import graph_costs
from edge_far.compile.graph.builder import Builder
from edge_far.device.planning.parts import value_at
from tests.tiny_graphs import INT64, UINT8, make_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
PRODUCTS = ("Gemm", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearMatMul")


def costs_of(model: ir.Model) -> dict[str, OperatorCost]:
    found = graph_costs(model.graph)
    assert len({cost.kernel for cost in found}) == len(found)
    return {cost.kernel: cost for cost in found}


def test_products_count_operations_and_depend_on_what_grows() -> None:
    def build(b: Builder, x: ir.Value, dy: ir.Value, w: ir.Value, q: ir.Value) -> list[ir.Value]:
        wide = b.op("DynamicQuantizeMatMul", [x, w], (TOKENS, 24), domain="com.microsoft")
        return [b.gemm(x, dy, trans_left=True), wide, b.matmul(q, q, trans_right=True, alpha=0.5)]

    shapes = {"x": (TOKENS, 16), "dy": (TOKENS, 8), "w": ((16, 24), ir.DataType.INT8)}
    found = costs_of(make_graph({**shapes, "q": ("batch", 4, "sequence", 8)}, build))
    tokens = ((1.0, 1.0, 1.0),)
    assert found == {
        "DynamicQuantizeMatMul(Tn,int8:nn)": OperatorCost(
            "DynamicQuantizeMatMul(Tn,int8:nn)", ((1, 1, 2.0 * 16 * 24),), tokens, 1
        ),
        "Gemm[transA=1,transB=0](Tn,Tn)": OperatorCost(
            "Gemm[transA=1,transB=0](Tn,Tn)", ((1, 1, 2.0 * 16 * 8),), tokens, 1
        ),
        "FusedMatMul[transA=0,transB=1](bnsn,bnsn)": OperatorCost(
            "FusedMatMul[transA=0,transB=1](bnsn,bnsn)", ((1, 2, 2.0 * 4 * 8),), ((0, 1, 1.0),), 1
        ),
    }


def test_attention_in_one_operator_counts_both_products() -> None:
    def build(b: Builder, q: ir.Value) -> ir.Value:
        return b.op("MultiHeadAttention", [q, q, q], ("batch", "sequence", 32), domain="com.microsoft", num_heads=4)

    (cost,) = graph_costs(make_graph({"q": ("batch", "sequence", 32)}, build).graph)
    # scores: 2 x S x S x 32, values: as many.
    assert cost.work == ((1, 2, 4.0 * 32),) and cost.size == ((0, 1, 1.0),)


def test_other_operators_count_bytes_and_alike_ones_are_counted_together() -> None:
    def build(b: Builder, x: ir.Value, row: ir.Value, bits: ir.Value) -> list[ir.Value]:
        first = b.mul(x, row)
        return [b.mul(first, row), b.cast(bits, ir.DataType.FLOAT), b.reduce("ReduceSum", x, 0, keepdims=False)]

    inputs = {"x": (TOKENS, 16), "row": (TOKENS, 1), "bits": ((TOKENS, 2), UINT8)}
    found = costs_of(make_graph(inputs, build))
    assert found["Mul(Tn,T1)"].count == 2
    assert found["Mul(Tn,T1)"].work == found["Mul(Tn,T1)"].size == ((1, 1, 4.0 * (16 + 1 + 16)),)
    assert found["Cast[to=1](uint8:Tn)"].work == ((1, 1, 2 + 4.0 * 2),)
    assert found["ReduceSum[keepdims=0](Tn,{0})"].work == ((0, 0, 8 + 4.0 * 16), (1, 1, 4.0 * 16))


def test_reshapes_and_work_on_vectors_are_nodes_alone() -> None:
    def build(b: Builder, x: ir.Value, gamma: ir.Value) -> list[ir.Value]:
        return [b.reshape_to(x, (TOKENS, 4, 4)), b.mul(gamma, b.scalar(2.0))]

    found = graph_costs(make_graph({"x": (TOKENS, 16), "gamma": (16,)}, build).graph)
    assert found == (OperatorCost("node", (), (), 2),)


def test_a_look_up_reads_the_rows_it_takes() -> None:
    def build(b: Builder, ids: ir.Value) -> ir.Value:
        table = b.constant(np.zeros((1000, 16), np.float32), "table")
        return b.op("Gather", [table, ids], ("batch", "sequence", 16), axis=0)

    (cost,) = graph_costs(make_graph({"ids": (("batch", "sequence"), INT64)}, build).graph)
    assert cost.work == ((1, 1, 2 * 4.0 * 16 + 8),)


def numbers(value: ir.Value) -> list[int]:
    """Return a value's dimensions for 3 examples of 8 tokens."""
    known = {TOKENS: 24, "batch": 3, "sequence": 8}
    assert value.shape is not None
    return [dim if isinstance(dim, int) else known[str(dim.value)] for dim in value.shape]


@pytest.mark.parametrize("name", ["distilbert-r40-2-all-tokens", "roberta-r10-5-dropout", "tiny-int8"])
def test_a_bundles_costs_are_those_of_its_files(name: str, tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = tiny_bundle(name)
    portable = bundle.manifest.portable
    described = {step.name: step.costs for step in portable.steps} | {"infer": portable.infer.costs}
    operations = {}
    for graph, costs in described.items():
        model = ir.load(bundle.path(f"portable/{graph}.onnx"))
        assert sum(cost.count for cost in costs) == model.graph.num_nodes()
        expected = 0
        for node in model.graph:
            if node.op_type in PRODUCTS:
                assert node.inputs[0] is not None
                expected += 2 * math.prod(numbers(node.inputs[0])) * numbers(node.outputs[0])[1]
        operations[graph] = sum(
            cost.count * value_at(cost.work, 3, 8) for cost in costs if cost.kernel.startswith(PRODUCTS)
        )
        assert operations[graph] == expected
    assert operations["step"] > 2 * operations["infer"]
    assert ("step-remat" in operations) == (name != "tiny-int8")
    assert operations.get("step-remat", math.inf) > operations["step"]
