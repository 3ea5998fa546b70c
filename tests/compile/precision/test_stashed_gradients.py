"""A frozen branch's gradient in bytes: exact nodes, errors row by row, clipping, and where it is left alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.graph.builder import INTERNAL, Builder
from edge_far.compile.graph.edits import only_user
from edge_far.compile.precision.quantize import quantize_frozen_products
from edge_far.compile.precision.scale_gradient_rows import scale_gradient_rows
from edge_far.compile.precision.stash_gelu import stash_gelu_derivatives
from tests.compile.precision.test_stash_gelu import derivative
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
ROWS, WIDTH, NODES = 40, 48, 300
W1, W2 = random_array(0, WIDTH, NODES) / 7, random_array(1, NODES, WIDTH) / 17
X, DY = random_array(2, ROWS, WIDTH), random_array(3, ROWS, WIDTH)


def branch(w2: np.ndarray = W2, w1: np.ndarray = W1) -> ir.Model:
    """Return the forward and backward graph of gelu(x @ w1) @ w2, ready to be quantised."""
    width, nodes = w1.shape

    def build(b, x, dy):
        first, second = b.constant(w1, "w1"), b.constant(w2, "w2")
        hidden = b.gemm(x, first)
        y = b.gemm(b.unary("Gelu", hidden), second)
        gradient = b.gemm(dy, second, trans_right=True)
        dh = b.op("GeluGrad", [gradient, hidden], (TOKENS, nodes), domain=INTERNAL)
        dx = b.add(b.gemm(dh, first, trans_right=True), dy)
        return [y, dx]

    model = make_graph({"x": (TOKENS, width), "dy": (TOKENS, width)}, build)
    stash_gelu_derivatives(model)
    scale_gradient_rows(model)
    return model


def quantized(w2: np.ndarray = W2) -> ir.Model:
    model = branch(w2)
    note = quantize_frozen_products(model)
    assert note.changes["products of bytes with stashes"] == 1 and not note.refusals
    return model


def exact(x: np.ndarray, dy: np.ndarray, w2: np.ndarray = W2) -> np.ndarray:
    """Return the branch's own gradient in double precision."""
    return (dy.astype(np.float64) @ w2.T * derivative(x @ W1)) @ W1.T


def stash(model: ir.Model) -> ir.Node:
    (node,) = [node for node in model.graph if node.op_type == "DequantizeLinear"]
    return node


def errors(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return each row's error, relative to the row."""
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


def test_between_the_products_lie_bytes() -> None:
    model = quantized()
    backward = operators(model)[operators(model).index("ReduceL2") :]
    assert backward == [
        *("ReduceL2", "Mul", "Max", "Mul", "Reshape", "Shape", "ConstantOfShape", "QuantizeLinear", "QLinearMatMul"),
        *("com.microsoft.QLinearMul", "Mul", "com.microsoft.MatMulIntegerToFloat", "Add"),
    ]
    assert "DequantizeLinear" not in operators(model)
    (hidden,) = [node for node in model.graph if node.op_type == "QLinearMul"]
    assert hidden.outputs[0].dtype == ir.DataType.UINT8


def test_each_row_keeps_its_precision_whatever_its_size() -> None:
    sizes = np.logspace(-12, 6, ROWS, dtype=np.float32)[:, None]
    found = run_graph(quantized(), X, DY * sizes)[1] - DY * sizes
    # The sum with dy rounds to 2**-24 of it. What remains is five roundings to 8 bits: two matrices to a step of
    # largest / 127, dy to one of length / 127, the gradient to one of 4 / 127 deviations, the stash at most 0.0245 off,
    # the product of both.
    assert errors(found, exact(X, DY * sizes)).max() < 0.06


@pytest.mark.parametrize("sizes", [(0, 0), (-2, 1)], ids=["alike", "columns of different sizes"])
def test_it_is_as_near_as_the_product_in_float(sizes: tuple[float, float]) -> None:
    w2 = W2 * np.logspace(*sizes, NODES, dtype=np.float32)[:, None]
    model = branch(w2)
    restored = stash(model)
    reader = only_user(restored.outputs[0])
    b = Builder(model.graph, "same")
    reader.replace_input_with(1, b.mul(restored.outputs[0], b.scalar(1.0)))  # not a stash any more, to the pass
    model.graph.insert_after(restored, b.nodes)
    note = quantize_frozen_products(model)
    assert "products of bytes with stashes" not in note.changes
    in_float = errors(run_graph(model, X, DY)[1] - DY, exact(X, DY, w2))
    in_bytes = errors(run_graph(quantized(w2), X, DY)[1] - DY, exact(X, DY, w2))
    assert in_bytes.mean() < 1.15 * in_float.mean() and in_bytes.max() < 0.06


@pytest.mark.parametrize("width", [64, 256, 768])
def test_rows_longer_than_one_are_clipped_no_earlier(width: int) -> None:
    """Above 64 numbers a scaled row is longer than 1, and the step of the first product with it."""
    w1, w2 = random_array(4, width, NODES) / width**0.5, random_array(5, NODES, width) / 17
    x, dy = random_array(6, ROWS, width), random_array(7, ROWS, width)
    model = branch(w2, w1)
    quantize_frozen_products(model)
    expected = (dy.astype(np.float64) @ w2.T * derivative(x @ w1)) @ w1.T
    assert errors(run_graph(model, x, dy)[1] - dy, expected).max() < 0.06


def test_a_branch_of_one_node_is_not_mistaken_for_a_factor_a_row() -> None:
    w1, w2 = random_array(8, 1024, 1) / 32, random_array(9, 1, 1024)
    x, dy = random_array(10, ROWS, 1024), random_array(11, ROWS, 1024)
    model = branch(w2, w1)
    quantize_frozen_products(model)
    expected = (dy.astype(np.float64) @ w2.T * derivative(x @ w1)) @ w1.T
    # One node has no others to tell its size by: values beyond four deviations would be clipped, none is here.
    found = run_graph(model, x, dy)[1] - dy
    assert np.linalg.norm(found - expected) < 0.06 * np.linalg.norm(expected)


def test_a_row_of_zeros_stays_zero() -> None:
    dy = DY.copy()
    dy[3] = 0
    assert np.array_equal(run_graph(quantized(), X, dy)[1][3], np.zeros(WIDTH, np.float32))


def test_what_is_beyond_four_deviations_is_clipped_and_nothing_else() -> None:
    w2 = W2.copy()
    w2[7] = 0
    w2[7, 5] = 1.0  # this node's gradient is dy[:, 5] alone: the root mean square of its column is 1 / sqrt(WIDTH)
    dy = np.zeros_like(DY)
    dy[:, 5] = 1.0
    limit = 4 / np.sqrt(WIDTH)
    gradient = dy.astype(np.float64) @ w2.T
    assert gradient[0, 7] > limit
    gradient[:, 7] = limit
    expected = (gradient * derivative(X @ W1)) @ W1.T
    assert errors(run_graph(quantized(w2), X, dy)[1] - dy, expected).max() < 0.06


def test_a_gradient_that_something_else_reads_stays_in_float() -> None:
    model = branch()
    (product,) = [node for node in model.graph if node.op_type == "Mul" and node.inputs[1].producer() is stash(model)]
    b = Builder(model.graph, "reader")
    model.graph.outputs.append(b.unary("Neg", product.inputs[0]))
    model.graph.insert_after(product, b.nodes)
    note = quantize_frozen_products(model)
    assert "products of bytes with stashes" not in note.changes
    assert "com.microsoft.QLinearMul" not in operators(model)
