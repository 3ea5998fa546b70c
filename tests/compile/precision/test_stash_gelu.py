"""The 8-bit stash of GELU': exact nodes and bounded errors; the difference that learners take."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
from edge_far.compile.graph.builder import INTERNAL
from edge_far.compile.precision.stash_gelu import CURVES, stash_gelu_derivatives
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
DERIVATIVE_ERROR = CURVES["GeluGrad"].error
W, X, DY = random_array(0, 16, 24), random_array(1, 10, 16), random_array(2, 10, 24)


def derivative(x: np.ndarray) -> np.ndarray:
    """GELU'(x) = cdf(x) + x pdf(x), in double precision."""
    cdf = 0.5 * (1 + np.vectorize(math.erf)(x.astype(np.float64) / math.sqrt(2)))
    return cdf + x * np.exp(-0.5 * x.astype(np.float64) ** 2) / math.sqrt(2 * math.pi)


def frozen_branch():
    def build(b, x, dy):
        hidden = b.gemm(x, b.constant(W, "w"))
        return [b.unary("Gelu", hidden), b.op("GeluGrad", [dy, hidden], (TOKENS, 24), domain=INTERNAL)]

    return make_graph({"x": (TOKENS, 16), "dy": (TOKENS, 24)}, build)


def of_all_x(trained: bool, function: str = "Gelu") -> tuple[np.ndarray, np.ndarray]:
    """Return x from -12 to 12, and the derivatives that the rewritten graph makes of it."""

    def build(b, x, dy, learner):
        hidden = b.gemm(x, learner if trained else b.constant(np.ones((1, 1), np.float32), "w"))
        active = b.unary(function, hidden, domain="" if function == "Gelu" else INTERNAL)
        return [active, b.op(f"{function}Grad", [dy, hidden], (TOKENS, 1), domain=INTERNAL)]

    model = make_graph({"x": (TOKENS, 1), "dy": (TOKENS, 1), "learner": (1, 1)}, build)
    stash_gelu_derivatives(model)
    x = np.linspace(-12, 12, 200_001).astype(np.float32)
    ones = np.ones((x.size, 1), np.float32)
    return x, run_graph(model, x[:, None], ones, ones[:1])[1][:, 0]


def test_a_frozen_branch_keeps_eight_bits() -> None:
    model = frozen_branch()
    note = stash_gelu_derivatives(model)
    assert note.changes == {"pre-activations kept as 8-bit derivatives": 1} and not note.refusals
    forward = ["Gemm", "Gelu", "QuantizeLinear", "com.microsoft.QLinearSigmoid", "com.microsoft.QLinearAdd"]
    assert operators(model) == [*forward, "DequantizeLinear", "Mul"]
    _, found = run_graph(model, X, DY)
    assert np.all(np.abs(found - DY * derivative(X @ W)) <= np.abs(DY) * DERIVATIVE_ERROR)


def test_the_stash_is_near_the_derivative_everywhere() -> None:
    x, found = of_all_x(trained=False)
    error = found - derivative(x)
    assert np.abs(error).max() <= DERIVATIVE_ERROR
    inside = np.abs(x) <= 3
    assert np.sqrt(np.mean(error[inside] ** 2)) <= 0.01 and abs(np.mean(error[inside])) <= 0.001
    # What a GELU switches off or lets through adds no error of its own, however far out.
    assert np.all(found[x < -4] == 0) and found[x > 4] == pytest.approx(1, abs=0.003)


def test_a_learner_takes_a_difference() -> None:
    def build(b, x, dy, learner, out):
        hidden = b.gemm(x, learner)
        gradient = b.gemm(dy, out)
        return [b.unary("Gelu", hidden), b.op("GeluGrad", [gradient, hidden], (TOKENS, 24), domain=INTERNAL)]

    out = random_array(3, 8, 24)
    shapes = {"x": (TOKENS, 16), "dy": (TOKENS, 8), "learner": (16, 24), "out": (8, 24)}
    model = make_graph(shapes, build)
    note = stash_gelu_derivatives(model)
    assert note.changes == {"derivatives of learners as differences": 1} and not note.refusals
    assert operators(model) == ["Gemm", "Gemm", "Gelu", "com.microsoft.BiasGelu", "Sub", "Mul"], "no factor of its own"
    dy = random_array(4, 10, 8)
    _, found = run_graph(model, X, dy, W, out)
    assert np.all(np.abs(found - (dy @ out) * derivative(X @ W)) <= np.abs(dy @ out) * 0.0011 + 1e-6)


def test_the_difference_is_near_the_derivative_everywhere() -> None:
    """In fp32, as it runs: the rounding of GELU and of the subtraction is in it."""
    x, found = of_all_x(trained=True)
    assert np.abs(found - derivative(x)).max() <= 0.0011


def silu_derivative(x: np.ndarray) -> np.ndarray:
    sigmoid = 1 / (1 + np.exp(-x.astype(np.float64)))
    return sigmoid * (1 + x * (1 - sigmoid))


def test_the_stash_of_a_silu_is_near_its_derivative_everywhere() -> None:
    x, found = of_all_x(trained=False, function="Silu")
    error = found - silu_derivative(x)
    assert np.abs(error).max() <= CURVES["SiluGrad"].error
    inside = np.abs(x) <= 4
    assert np.sqrt(np.mean(error[inside] ** 2)) <= 0.01 and abs(np.mean(error[inside])) <= 0.001
    assert np.all(found[x < -5] == 0) and found[x > 6] == pytest.approx(1, abs=0.02)


def test_a_learners_silu_keeps_its_formula() -> None:
    """ONNX Runtime's sigmoid is up to 1e-7 off, which x multiplies."""
    x, found = of_all_x(trained=True, function="Silu")
    np.testing.assert_allclose(found, silu_derivative(x), rtol=0, atol=3e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_of_a_frozen_relu_only_its_sign_is_kept(frozen: bool) -> None:
    def build(b, x, dy, learner):
        active = b.unary("Relu", b.gemm(x, b.constant(W, "w") if frozen else learner))
        return [active, b.op("ReluGrad", [dy, active], (TOKENS, 24), domain=INTERNAL)]

    model = make_graph({"x": (TOKENS, 16), "dy": (TOKENS, 24), "learner": (16, 24)}, build)
    note = stash_gelu_derivatives(model)
    assert note.changes == ({"ReLUs kept as 8-bit derivatives": 1} if frozen else {})
    if frozen:
        assert operators(model) == ["Gemm", "Relu", "Greater", "Cast", "DequantizeLinear", "Mul"]
    _, found = run_graph(model, X, DY, W)
    np.testing.assert_array_equal(found, np.where(X @ W > 0, DY, 0))
