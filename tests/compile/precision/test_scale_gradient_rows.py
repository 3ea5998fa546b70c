"""Scaling a frozen branch's gradient by rows: exact without quantisation, and small rows survive int8."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.precision.quantize import quantize_frozen_products
from edge_far.compile.precision.scale_gradient_rows import scale_gradient_rows, scaled_length
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
W1, W2 = random_array(0, 32, 64), random_array(1, 64, 32)
D = np.abs(random_array(2, 20, 64))
# One row carries nearly everything, as the first token does; one is padding.
DY = random_array(3, 20, 32) * np.array([100.0] + [0.01] * 18 + [0.0], np.float32)[:, None]
EXACT = ((DY @ W2.T) * D) @ W1.T


def branch() -> ir.Model:
    def build(b, dy, d):
        inner = b.mul(b.gemm(dy, b.constant(W2, "w2"), trans_right=True), d)
        return b.add(b.gemm(inner, b.constant(W1, "w1"), trans_right=True), b.scalar(0.0))

    return make_graph({"dy": (TOKENS, 32), "d": (TOKENS, 64)}, build)


def test_exact_in_fp32() -> None:
    model = branch()
    note = scale_gradient_rows(model)
    assert note.changes == {"frozen branches scaled by rows": 1}
    assert operators(model) == ["ReduceL2", "Mul", "Max", "Div", "Gemm", "Mul", "Gemm", "Mul", "Add"]
    (found,) = run_graph(model, DY, D)
    np.testing.assert_allclose(found, EXACT, rtol=1e-5, atol=1e-5)
    assert not found[-1].any(), "a row of zeros stays zero"


def test_a_product_that_stands_alone_is_scaled_too() -> None:
    """The projections of frozen heads: nothing elementwise leads from one to another."""

    def build(b, dy):
        return b.add(b.gemm(dy, b.constant(W2, "w2"), trans_right=True), b.scalar(0.0))

    model = make_graph({"dy": (TOKENS, 32)}, build)
    note = scale_gradient_rows(model)
    assert note.changes == {"frozen products scaled by rows": 1}
    assert operators(model) == ["ReduceL2", "Mul", "Max", "Div", "Gemm", "Mul", "Add"]
    np.testing.assert_allclose(run_graph(model, DY)[0], DY @ W2.T, rtol=1e-5, atol=1e-5)
    quantize_frozen_products(model)
    (found,) = run_graph(model, DY)
    exact = (DY @ W2.T)[1:-1]
    assert np.linalg.norm(found[1:-1] - exact) / np.linalg.norm(exact) < 0.03


def test_small_rows_survive_int8() -> None:
    def error_of_small_rows(model: ir.Model) -> float:
        quantize_frozen_products(model)
        (found,) = run_graph(model, DY, D)
        return float(np.linalg.norm(found[1:-1] - EXACT[1:-1]) / np.linalg.norm(EXACT[1:-1]))

    plain, scaled = branch(), branch()
    scale_gradient_rows(scaled)
    assert error_of_small_rows(scaled) < 0.03
    assert error_of_small_rows(plain) > 0.5, "one scale a tensor loses them"


def test_scaled_rows_have_one_length() -> None:
    """Up to 64 numbers a row is as long as the largest magnitude allowed; above, ROW_SIZE_RMS root mean squares are."""
    for width in (32, 64, 768):
        rows = random_array(4, 5, width) * np.logspace(-3, 3, 5, dtype=np.float32)[:, None]

        def build(b, dy, width=width):
            inner = b.gemm(dy, b.constant(random_array(5, 64, width), "w2"), trans_right=True)
            return b.add(b.gemm(inner, b.constant(random_array(6, width, 64), "w1"), trans_right=True), dy)

        model = make_graph({"dy": (TOKENS, width)}, build)
        scale_gradient_rows(model)
        (division,) = [node for node in model.graph if node.op_type == "Div"]
        model.graph.outputs.append(division.outputs[0])
        lengths = np.linalg.norm(run_graph(model, rows)[1], axis=1)
        np.testing.assert_allclose(lengths, max(1.0, width**0.5 / 8), rtol=1e-5)
        assert scaled_length(width) == pytest.approx(max(1.0, width**0.5 / 8))
