"""int8 storage of frozen matrices and tables: exact nodes, bounded error, and what is left alone and why."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from edge_far.compile.precision.quantize import (
    MATRIX_BLOCK,
    quantize_blocks,
    quantize_columns,
    quantize_frozen_products,
    quantize_frozen_tables,
    store_frozen_weights,
)
from tests.tiny_graphs import INT64, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

W, BIAS, X = random_array(0, 32, 64), random_array(1, 64), random_array(2, 20, 32)
TOKENS = "batch*sequence"


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_quantized_columns_stay_within_half_a_step_and_never_reach_minus_128() -> None:
    matrix = np.concatenate([W, -np.abs(W), np.zeros((32, 1), np.float32)], axis=1)
    values, scales = quantize_columns(matrix)
    assert values.dtype == np.int8 and values.min() == -127 and values.max() == 127
    assert np.abs(matrix - values * scales).max(axis=0) == pytest.approx(0, abs=float(scales.max()) / 2)
    assert np.all(np.abs(matrix - values * scales) <= scales / 2 * (1 + 1e-5))
    assert not values[:, -1].any(), "a column of zeros stays zero"


def test_forward_product_with_bias() -> None:
    model = make_graph({"x": (TOKENS, 32)}, lambda b, x: b.gemm(x, b.constant(W, "w"), b.constant(BIAS, "c")))
    note = quantize_frozen_products(model)
    assert operators(model) == ["com.microsoft.DynamicQuantizeMatMul"]
    assert set(model.graph.initializers) == {"w.forward.int8", "w.forward.scales", "c"}
    assert note.changes == {"products in int8, one scale a tensor": 1} and not note.refusals
    assert relative_error(run_graph(model, X)[0], X @ W + BIAS) < 0.015


def test_backward_product_gets_scales_of_its_own() -> None:
    model = make_graph({"dy": (TOKENS, 64)}, lambda b, dy: b.gemm(dy, b.constant(W, "w"), trans_right=True))
    quantize_frozen_products(model)
    assert operators(model) == ["com.microsoft.DynamicQuantizeMatMul"]
    scales = model.graph.initializers["w.backward.scales"].const_value
    assert scales is not None and scales.shape.numpy() == (32,)
    dy = random_array(3, 20, 64)
    assert relative_error(run_graph(model, dy)[0], dy @ W.T) < 0.015


def test_weights_alone_are_stored_once_for_both_directions() -> None:
    model = make_graph(
        {"x": (TOKENS, 32), "dy": (TOKENS, 64)},
        lambda b, x, dy: [b.gemm(x, b.constant(W, "w")), b.gemm(dy, b.constant(W, "w"), trans_right=True)],
    )
    note = store_frozen_weights(model)
    assert operators(model) == ["DequantizeLinear", "Gemm", "DequantizeLinear", "Gemm"]
    assert set(model.graph.initializers) == {"w.int8", "w.scales"} and note.changes == {"matrices stored in 8 bits": 2}
    values, scales = quantize_blocks(W, axis=0)
    assert values.shape == W.shape and scales.shape == (32 // MATRIX_BLOCK, 64)
    stored = values * np.repeat(scales, MATRIX_BLOCK, axis=0)
    assert np.all(np.abs(W - stored) <= np.repeat(scales, MATRIX_BLOCK, axis=0) / 2 * (1 + 1e-5))
    dy = random_array(3, 20, 64)
    forward, backward = run_graph(model, X, dy)
    # Only the storage rounds: the products are fp32 products with the matrix that is stored.
    np.testing.assert_allclose(forward, X @ stored, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(backward, dy @ stored.T, rtol=1e-5, atol=1e-5)


def test_learners_and_small_matrices_stay() -> None:
    model = make_graph(
        {"x": (TOKENS, 32), "learner": (32, 64)},
        lambda b, x, learner: [b.gemm(x, learner), b.gemm(x, b.constant(W[:, :8], "small"))],
    )
    note = quantize_frozen_products(model)
    assert operators(model) == ["Gemm", "Gemm"]
    assert note.refusals == ["small: only 256 elements"]


def test_frozen_table() -> None:
    table = random_array(0, 50, 32) * np.logspace(-3, 1, 50, dtype=np.float32)[:, None]
    model = make_graph(
        {"index": (("batch", "sequence"), INT64)},
        lambda b, index: b.op("Gather", [b.constant(table, "t"), index], ("batch", "sequence", 32), axis=0),
    )
    quantize_frozen_tables(model)
    assert operators(model) == ["Gather", "Gather", "Cast", "Reshape", "Mul", "Reshape"]
    stored = {name for name in model.graph.initializers if not name.startswith("shape")}
    assert stored == {"t.int8", "t.scales"}
    index = np.arange(50).reshape(5, 10)
    (found,) = run_graph(model, index)
    errors = np.linalg.norm(found - table[index], axis=-1) / np.linalg.norm(table[index], axis=-1)
    assert errors.max() < 0.012, "each row has its own scale, so small rows lose nothing to large ones"


def test_trained_tables_stay() -> None:
    model = make_graph(
        {"index": (("batch", "sequence"), INT64), "table": (50, 32)},
        lambda b, index, table: b.op("Gather", [table, index], ("batch", "sequence", 32), axis=0),
    )
    quantize_frozen_tables(model)
    assert operators(model) == ["Gather"]
