"""The factors of frozen gated FFNs in 8 bits: exact for the forward pass, near for the backward one."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from edge_far.compile.precision.stash_gates import stash_gates
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
INNER, GATE = random_array(0, 16, 24), random_array(1, 16, 24)
X, DY = random_array(2, 10, 16) * np.geomspace(0.01, 100, 10, dtype=np.float32)[:, None], random_array(3, 10, 24)


def gated(frozen: bool):
    def build(b, x, dy, learner):
        active = b.unary("Gelu", b.gemm(x, b.constant(INNER, "inner")))
        gate = b.gemm(x, b.constant(GATE, "gate") if frozen else learner)
        return [b.mul(active, gate), b.mul(dy, gate), b.mul(dy, active)]

    return make_graph({"x": (TOKENS, 16), "dy": (TOKENS, 24), "learner": (16, 24)}, build)


def test_both_factors_are_kept_in_8_bits_with_a_scale_a_row() -> None:
    plain, stashed = gated(True), gated(True)
    assert stash_gates(stashed).changes == {"factors kept in 8 bits": 2}
    assert operators(stashed).count("QuantizeLinear") == operators(stashed).count("DequantizeLinear") == 2
    (product, *factors), (same, *near) = (run_graph(model, X, DY, GATE) for model in (plain, stashed))
    np.testing.assert_array_equal(same, product)
    for exact, found in zip(factors, near, strict=True):
        largest = np.abs(exact / DY).max(axis=1, keepdims=True)
        assert np.all(np.abs(found - exact) <= np.abs(DY) * largest * (0.501 / 127))


def test_a_learners_gate_is_left_as_it_is() -> None:
    model = gated(False)
    before = operators(model)
    assert not stash_gates(model).changes and operators(model) == before
