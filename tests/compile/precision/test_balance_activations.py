"""Balancing what frozen products read: exact without quantisation, and a smaller error with it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.precision.balance_activations import balance_activations, copied_channels
from edge_far.compile.precision.quantize import quantize_frozen_products
from tests.tiny_graphs import FLOAT, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
X, W, BIAS = random_array(0, 40, 32), random_array(1, 32, 64), random_array(2, 64)
GAMMA = np.where(np.arange(32) == 7, 30.0, 0.5).astype(np.float32)  # one outlier channel
BETA = np.zeros(32, np.float32)
PARAMETERS = {"gamma": GAMMA, "beta": BETA}
ROWS = random_array(3, 40, 32) * np.logspace(-2, 1, 40, dtype=np.float32)[:, None]


def behind_layer_norm() -> ir.Model:
    def build(b, x, gamma, beta):
        outputs = [((TOKENS, 32), FLOAT), ((TOKENS, 1), FLOAT), ((TOKENS, 1), FLOAT)]
        y = b.multi("LayerNormalization", [x, gamma, beta], outputs, axis=-1)[0]
        return b.gemm(y, b.constant(W, "w"), b.constant(BIAS, "c"))

    return make_graph({"x": (TOKENS, 32), "gamma": (32,), "beta": (32,)}, build)


def behind_gelu() -> ir.Model:
    def build(b, h):
        return b.unary("Neg", b.gemm(h, b.constant(W, "w"), b.constant(BIAS, "c")))

    return make_graph({"h": (TOKENS, 32)}, build)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_channels_behind_layer_norm() -> None:
    exact = run_graph(behind_layer_norm(), X, GAMMA, BETA)[0]
    model = behind_layer_norm()
    note = balance_activations(model, PARAMETERS, {})
    assert note.changes == {"products balanced by channels": 1}
    assert operators(model) == ["LayerNormalization", "Mul", "Gemm"]
    np.testing.assert_allclose(run_graph(model, X, GAMMA, BETA)[0], exact, rtol=1e-4, atol=1e-4)
    trained = GAMMA + 0.1  # exact for any later gamma too
    expected = run_graph(behind_layer_norm(), X, trained, BETA)[0]
    np.testing.assert_allclose(run_graph(model, X, trained, BETA)[0], expected, rtol=1e-4, atol=1e-4)


def test_products_that_read_the_same_read_one_quotient_and_one_quantisation() -> None:
    """Queries, keys and values; the queries of first tokens alone have a quotient of their own."""

    def build(b, x, gamma, beta):
        outputs = [((TOKENS, 32), FLOAT), ((TOKENS, 1), FLOAT), ((TOKENS, 1), FLOAT)]
        y = b.multi("LayerNormalization", [x, gamma, beta], outputs, axis=-1)[0]
        return [b.gemm(y, b.constant(W * factor, f"w{factor}"), b.constant(BIAS, "c")) for factor in (1, 2, 3)]

    def graph() -> ir.Model:
        return make_graph({"x": (TOKENS, 32), "gamma": (32,), "beta": (32,)}, build)

    exact = run_graph(graph(), X, GAMMA, BETA)
    model = graph()
    seen = np.full(32, 0.1, np.float32)
    seen[3] = 50.0  # a channel that was seen to be larger than gamma says
    note = balance_activations(model, PARAMETERS, dict.fromkeys(("w1", "w2", "w3"), seen))
    assert note.changes == {"products balanced by channels, a few of them copied": 3}
    assert operators(model) == ["LayerNormalization", "Mul", "Gather", "Concat", *["Gemm"] * 3]
    for found, expected in zip(run_graph(model, X, GAMMA, BETA), exact, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    (channels,) = [value for name, value in model.graph.initializers.items() if name.endswith(".channels")]
    sizes = 1 / channels.const_value.numpy()
    np.testing.assert_allclose(sizes[[3, 7, 9]], [3.0, 90.0, 1.5], rtol=1e-6)
    quantize_frozen_products(model)
    steps = ["LayerNormalization", "Mul", "DynamicQuantizeLinear", "Gather", "Concat"]  # bytes are copied
    assert operators(model) == [*steps, *["com.microsoft.MatMulIntegerToFloat"] * 3]
    for found, expected in zip(run_graph(model, X, GAMMA, BETA), exact, strict=True):
        assert relative_error(found, expected) < 0.02


def test_by_rows_no_number_depends_on_another_row() -> None:
    """Channels, copies and bias as before, one quantisation for two products, and the same bits for a row alone."""

    def graph() -> ir.Model:
        def build(b, x, gamma, beta):
            outputs = [((TOKENS, 32), FLOAT), ((TOKENS, 1), FLOAT), ((TOKENS, 1), FLOAT)]
            y = b.multi("LayerNormalization", [x, gamma, beta], outputs, axis=-1)[0]
            return [
                b.unary("Neg", b.gemm(y, b.constant(W * factor, f"w{factor}"), b.constant(BIAS, "c")))
                for factor in (1, 2)
            ]

        return make_graph({"x": (TOKENS, 32), "gamma": (32,), "beta": (32,)}, build)

    exact = run_graph(graph(), ROWS, GAMMA, BETA)
    seen = np.full(32, 0.1, np.float32)
    seen[3] = 50.0
    model = graph()
    balance_activations(model, PARAMETERS, dict.fromkeys(("w1", "w2"), seen), by_rows=True)
    for found, expected in zip(run_graph(model, ROWS, GAMMA, BETA), exact, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    quantize_frozen_products(model)
    found = operators(model)
    assert found.count("QuantizeLinear") == 1 and "DynamicQuantizeLinear" not in found and "Div" not in found
    whole = run_graph(model, ROWS, GAMMA, BETA)
    for result, expected in zip(whole, exact, strict=True):
        assert relative_error(result, expected) < 0.02
    for row in (0, 17):
        alone = run_graph(model, ROWS[row : row + 1], GAMMA, BETA)
        assert [each[0].tobytes() for each in alone] == [each[row].tobytes() for each in whole]


def test_channels_are_copied_as_often_as_they_exceed_their_size() -> None:
    sizes = np.full(128, 0.5, np.float32)
    seen = np.full(128, 0.6, np.float32)
    assert not len(copied_channels(sizes, seen)) and not len(copied_channels(sizes, None)), "nothing stands out"
    seen[[70, 9]] = 5.0, 1.5  # 10 and 3 times their size: of four copies three bring the one to 2.5, below the other
    assert copied_channels(sizes, seen).tolist() == [9, 70, 70, 70]


def test_a_channel_that_is_seldom_large_takes_no_scale_from_the_others() -> None:
    """One token of forty has a channel at its largest, 7.9 deviations; the other tokens are to be read as before."""
    x, w = random_array(7, 40, 64), random_array(8, 64, 64)
    x[0] = np.where(np.arange(64) == 5, 100.0, 0.0)
    gamma, beta = np.full(64, 0.5, np.float32), np.zeros(64, np.float32)

    def graph() -> ir.Model:
        def build(b, x, gamma, beta):
            outputs = [((TOKENS, 64), FLOAT), ((TOKENS, 1), FLOAT), ((TOKENS, 1), FLOAT)]
            y = b.multi("LayerNormalization", [x, gamma, beta], outputs, axis=-1)[0]
            return b.gemm(y, b.constant(w, "w"))

        return make_graph({"x": (TOKENS, 64), "gamma": (64,), "beta": (64,)}, build)

    def error(seen: dict[str, np.ndarray]) -> float:
        model = graph()
        balance_activations(model, {"gamma": gamma, "beta": beta}, seen)
        np.testing.assert_allclose(run_graph(model, x, gamma, beta)[0], exact, rtol=1e-4, atol=1e-4)
        quantize_frozen_products(model)
        return relative_error(run_graph(model, x, gamma, beta)[0][1:], exact[1:])

    exact = run_graph(graph(), x, gamma, beta)[0]
    largest = np.full(64, 1.5, np.float32)
    largest[5] = 0.5 * 63**0.5
    assert error({"w": largest}) < 0.7 * error({})


def test_hidden_states_of_a_prefix_are_balanced_by_what_was_seen() -> None:
    def graph() -> ir.Model:
        def build(b, x):
            return b.gemm(b.reshape_to(x, (TOKENS, 32)), b.constant(W, "w"))

        return make_graph({"x": ("batch", "sequence", 32)}, build)

    x = random_array(5, 2, 20, 32) * np.abs(GAMMA)
    model, unseen = graph(), graph()
    balance_activations(model, {}, {"w": np.abs(x).max((0, 1))})
    assert operators(model) == ["Reshape", "Mul", "Gemm"]
    np.testing.assert_allclose(run_graph(model, x)[0], x.reshape(40, 32) @ W, rtol=1e-4, atol=1e-4)
    balance_activations(unseen, {}, {})
    assert "ReduceMax" in operators(unseen), "by rows, where nothing was seen"


def test_rows_behind_gelu_keep_the_bias() -> None:
    model = behind_gelu()
    note = balance_activations(model, {}, {})
    assert note.changes == {"products balanced by rows": 1}
    assert operators(model) == ["ReduceMax", "ReduceMin", "Neg", "Max", "Div", "Gemm", "Mul", "Add", "Neg"]
    np.testing.assert_allclose(run_graph(model, ROWS)[0], -(ROWS @ W + BIAS), rtol=1e-5, atol=1e-5)


def test_rows_of_a_gelu_are_read_once() -> None:
    """A GELU is never below -0.17, so the largest value says enough."""

    def build(b, x):
        return b.unary("Neg", b.gemm(b.unary("Gelu", x), b.constant(W, "w")))

    def graph() -> ir.Model:
        return make_graph({"x": (TOKENS, 32)}, build)

    exact = run_graph(graph(), ROWS)[0]
    model = graph()
    balance_activations(model, {}, {})
    assert operators(model) == ["Gelu", "ReduceMax", "Max", "Div", "Gemm", "Mul", "Neg"]
    np.testing.assert_allclose(run_graph(model, ROWS)[0], exact, rtol=1e-5, atol=1e-5)
    quantize_frozen_products(model)
    # The product multiplies its rows by their sizes itself: no Div before it, no Mul behind it.
    steps = ["Mul", "Reshape", "Shape", "ConstantOfShape", "QuantizeLinear", "Mul"]
    product = [*steps, "com.microsoft.MatMulIntegerToFloat", "Neg"]
    assert operators(model) == ["Gelu", "ReduceMax", "Max", *product]
    assert relative_error(run_graph(model, ROWS)[0], exact) < 0.015
    # Nothing below zero is cut off, not even in rows of small numbers, where all of it counts.
    negative = -np.abs(random_array(9, 8, 32))
    assert relative_error(run_graph(model, negative)[0], run_graph(graph(), negative)[0]) < 0.02


def test_int8_error_falls_in_the_quiet_rows() -> None:
    def error(model: ir.Model) -> float:
        quantize_frozen_products(model)
        exact = -(ROWS @ W + BIAS)
        quiet = slice(0, 20)
        return relative_error(run_graph(model, ROWS)[0][quiet] + BIAS, exact[quiet] + BIAS)

    plain, balanced = behind_gelu(), behind_gelu()
    balance_activations(balanced, {}, {})
    assert error(balanced) < 0.02
    assert error(plain) > 5 * error(behind_balanced())


def behind_balanced() -> ir.Model:
    model = behind_gelu()
    balance_activations(model, {}, {})
    return model


def behind_sorted_nodes() -> ir.Model:
    def build(b, x):
        return b.unary("Neg", b.gemm(b.unary("Gelu", x), b.constant(WIDE, "w")))

    return make_graph({"x": (TOKENS, 100)}, build)


WIDE = random_array(4, 100, 48)


def test_the_largest_of_a_row_is_looked_for_among_the_first_nodes() -> None:
    seen = np.where(np.arange(100) < 5, 6.0, 2.5).astype(np.float32)
    x = random_array(5, 40, 100).clip(-2.4, 2.4)
    x[:3, 2] = (5.0, 12.0, 30.0)
    model = behind_sorted_nodes()
    balance_activations(model, {}, {"w": seen})
    assert operators(model) == ["Gelu", "Slice", "ReduceMax", "Max", "Div", "Gemm", "Mul", "Neg"]
    exact = run_graph(behind_sorted_nodes(), x)[0]
    np.testing.assert_allclose(run_graph(model, x)[0], exact, rtol=1e-4, atol=1e-4)
    (division,) = [node for node in model.graph if node.op_type == "Div"]
    model.graph.outputs.append(division.inputs[1])
    sizes = run_graph(model, x)[1].ravel()
    # Three rows by their own largest node, all others by 1.2 times the largest that the other 95 nodes were seen to be.
    np.testing.assert_allclose(sizes[:3], [5.0, 12.0, 30.0], rtol=1e-5)
    np.testing.assert_allclose(sizes[3:], 1.2 * 2.5, rtol=1e-6)
    model.graph.outputs.pop()
    quantize_frozen_products(model)
    assert relative_error(run_graph(model, x)[0], exact) < 0.02


def test_a_massive_node_is_left_to_fp32() -> None:
    """At one token a node is sixty times the rest of its row: what the rest makes is as near as at other tokens."""
    seen = np.array([30.0, *[3.0] * 4, *[2.0] * 95], np.float32)
    x = random_array(5, 40, 100).clip(-2.4, 2.4)
    x[0], x[0, 0] = 0.5 * x[1], 30.0
    exact = run_graph(behind_sorted_nodes(), x)[0]
    model = behind_sorted_nodes()
    balance_activations(model, {}, {"w": seen})
    assert operators(model) == ["Gelu", *["Slice"] * 2, "ReduceMax", "Max", "Div", "Gemm", "Mul", "Gemm", "Neg"]
    np.testing.assert_allclose(run_graph(model, x)[0], exact, rtol=1e-4, atol=1e-4)
    quantize_frozen_products(model)
    assert operators(model)[-2:] == ["Gemm", "Neg"], "too narrow for 8 bits"
    error = np.abs(run_graph(model, x)[0] - exact)
    assert error[0].max() < 1.5 * error[1:].max()
    ordinary = behind_sorted_nodes()
    balance_activations(ordinary, {}, {})
    quantize_frozen_products(ordinary)
    assert np.abs(run_graph(ordinary, x)[0] - exact)[0].max() > 3 * error[0].max(), "one scale for the row"


def test_by_rows_massive_nodes_need_no_gemm_whose_bits_depend_on_the_number_of_rows() -> None:
    seen = np.array([30.0, 25.0, *[3.0] * 3, *[2.0] * 95], np.float32)
    x = random_array(5, 40, 100).clip(-2.4, 2.4)
    x[0, :2] = 30.0, 25.0
    exact = run_graph(behind_sorted_nodes(), x)[0]
    model = behind_sorted_nodes()
    balance_activations(model, {}, {"w": seen}, by_rows=True)
    np.testing.assert_allclose(run_graph(model, x)[0], exact, rtol=1e-4, atol=1e-4)
    quantize_frozen_products(model)
    assert "Gemm" not in operators(model)
    whole = run_graph(model, x)[0]
    assert [run_graph(model, x[row : row + 1])[0][0].tobytes() for row in (0, 9)] == [
        whole[0].tobytes(),
        whole[9].tobytes(),
    ]


def test_what_exceeds_every_expectation_is_clipped_and_nothing_else() -> None:
    seen = np.full(100, 2.5, np.float32)
    x = random_array(6, 40, 100).clip(-2.4, 2.4)
    x[0, 50] = 40.0  # not among the first five
    model = behind_sorted_nodes()
    balance_activations(model, {}, {"w": seen})
    quantize_frozen_products(model)
    clipped = x.copy()
    clipped[0, 50] = 3.0
    assert relative_error(run_graph(model, x)[0], run_graph(behind_sorted_nodes(), clipped)[0]) < 0.03
    assert relative_error(run_graph(model, x)[0], run_graph(behind_sorted_nodes(), x)[0]) > 0.3
