"""The 8-bit stash of GELU': exact nodes, an error bounded by half a step, and learners left exact."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")
from edge_far.compile.builder import INTERNAL, MICROSOFT
from edge_far.compile.stash_gelu import DERIVATIVE_SCALE, DERIVATIVE_ZERO, DIFFERENCE, stash_gelu_derivatives
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
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


def test_a_frozen_branch_keeps_eight_bits() -> None:
    model = frozen_branch()
    note = stash_gelu_derivatives(model)
    assert note.changes == {"pre-activations kept as 8-bit derivatives": 1} and not note.refusals
    forward = ["Gemm", "Gelu", "com.microsoft.BiasGelu", "Sub", "QuantizeLinear"]
    assert operators(model) == [*forward, "DequantizeLinear", "Mul"]
    _, found = run_graph(model, X, DY)
    error = np.abs(found - DY * derivative(X @ W))
    # Half a step of the derivative and the error of the difference (the docstring's), times dy.
    assert np.all(error <= np.abs(DY) * (DERIVATIVE_SCALE / 2 + 0.0011))


def test_the_difference_is_nearer_than_the_step_of_the_stash() -> None:
    """In fp32, as it runs: the rounding of GELU and of the subtraction is in it."""
    x = np.linspace(-12, 12, 200_001).astype(np.float32)
    width = 1
    shift = np.full(width, DIFFERENCE, np.float32)

    def build(b, x):
        shifted = b.op("BiasGelu", [x, b.constant(shift, "s")], (TOKENS, width), domain=MICROSOFT)
        return b.sub(shifted, b.unary("Gelu", x))

    (rise,) = run_graph(make_graph({"x": (TOKENS, width)}, build), x[:, None])
    assert np.abs(rise[:, 0] / DIFFERENCE - derivative(x)).max() <= 0.0011


def test_the_range_covers_the_derivative() -> None:
    values = derivative(np.linspace(-8, 8, 100_001))
    steps = np.rint(values / DERIVATIVE_SCALE) + DERIVATIVE_ZERO
    assert steps.min() >= 0 and steps.max() <= 255


def test_a_learners_branch_stays_exact() -> None:
    def build(b, x, dy, learner):
        return b.op("GeluGrad", [dy, b.gemm(x, learner)], (TOKENS, 24), domain=INTERNAL)

    model = make_graph({"x": (TOKENS, 16), "dy": (TOKENS, 24), "learner": (16, 24)}, build)
    note = stash_gelu_derivatives(model)
    assert operators(model) == ["Gemm", "edge_far.GeluGrad"]
    assert len(note.refusals) == 1 and "stays exact" in note.refusals[0]
