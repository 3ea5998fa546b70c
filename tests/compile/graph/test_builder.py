"""The builder gives every value its shape; shapes it cannot give are refused. Sizes are polynomials of those shapes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.graph.builder import Builder, constant_of
from edge_far.compile.graph.sizes import Size, dims_of, element_bytes
from tests.tiny_graphs import INT64, make_graph, random_array, run_graph

pytestmark = pytest.mark.host


def test_shapes_of_results() -> None:
    def build(b: Builder, ids: ir.Value, x: ir.Value, w: ir.Value) -> list[ir.Value]:
        product = b.gemm(x, w)
        heads = b.reshape_to(product, ("batch", "sequence", 2, 3))
        turned = b.transpose(heads, (0, 2, 1, 3))
        scores = b.matmul(turned, turned, trans_right=True)
        return [product, heads, turned, scores, b.reduce("ReduceMax", scores, -1, keepdims=True), b.cast(ids, INT64)]

    inputs = {"input_ids": (("batch", "sequence"), INT64), "x": ("batch*sequence", 5), "w": (5, 6)}
    model = make_graph(inputs, build)
    assert [dims_of(value) for value in model.graph.outputs] == [
        ("batch*sequence", 6),
        ("batch", "sequence", 2, 3),
        ("batch", 2, "sequence", 3),
        ("batch", 2, "sequence", "sequence"),
        ("batch", 2, "sequence", 1),
        ("batch", "sequence"),
    ]
    sizes = {"batch": 2, "sequence": 4, "batch*sequence": 8}
    results = run_graph(model, np.zeros((2, 4), np.int64), random_array(0, 8, 5), random_array(1, 5, 6))
    for value, result in zip(model.graph.outputs, results, strict=True):
        assert result.shape == tuple(sizes[d] if isinstance(d, str) else d for d in dims_of(value))


def test_what_does_not_fit_is_refused() -> None:
    def build(b: Builder, x: ir.Value, y: ir.Value) -> ir.Value:
        with pytest.raises(ValueError, match="do not broadcast"):
            b.add(x, y)
        with pytest.raises(ValueError, match="cannot compute the shape"):
            b.reshape_to(x, ("sequence", "batch", 2))
        return b.add(x, x)

    make_graph({"x": ("batch", 3), "y": ("batch", 4)}, build)


def test_equal_constants_under_a_name_are_one() -> None:
    def build(b: Builder, x: ir.Value) -> ir.Value:
        one, same, other = b.scalar(0.5), b.scalar(0.5), b.scalar(0.25)
        assert one is same and one is not other
        first, second = b.constant(np.zeros(2, np.int64), "c"), b.constant(np.ones(2, np.int64), "c")
        assert first is not second and first.name != second.name
        assert constant_of(second).tolist() == [1, 1] and constant_of(x) is None
        return b.mul(x, one)

    make_graph({"x": (2, 3)}, build)


def test_sizes_are_polynomials() -> None:
    scores = Size.of(("batch", 4, "sequence", "sequence/8"))
    assert scores.at(3, 16) == 3 * 4 * 16 * 2
    total = scores + Size.of(("batch*sequence", 32), 4)
    assert total.at(3, 16) == 384 + 3 * 16 * 32 * 4
    assert (total - scores).to_json() == [[1, 1, 128.0]]
    assert (total - total).terms == {} and Size({}).at(5, 5) == 0
    value = ir.Value(name="v", shape=ir.Shape(["batch", 2]), type=ir.TensorType(ir.DataType.UINT8))
    assert element_bytes(value) == 1 and dims_of(value) == ("batch", 2)
    with pytest.raises(ValueError, match="shape of 'unknown' is unknown"):
        dims_of(ir.Value(name="unknown"))
