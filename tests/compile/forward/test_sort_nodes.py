"""Sorting a frozen branch's nodes: the same outputs, the constants moved alike, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.forward.sort_nodes import sort_nodes
from edge_far.compile.graph.builder import constant_of
from tests.tiny_graphs import make_graph, random_array, run_graph

pytestmark = pytest.mark.host

W1, BIAS, W2 = random_array(0, 16, 24), random_array(1, 24), random_array(2, 24, 16)
SEEN = np.abs(random_array(3, 24))
X = random_array(4, 10, 16)


def branch(*, bias_read_twice: bool = False) -> ir.Model:
    def build(b, x):
        bias = b.constant(BIAS, "c")
        hidden = b.gemm(x, b.constant(W1, "w1"), bias)
        y = b.unary("Neg", b.gemm(b.unary("Gelu", hidden), b.constant(W2, "w2")))
        return [y, b.unary("Neg", bias)] if bias_read_twice else y

    return make_graph({"x": ("batch*sequence", 16)}, build)


def test_outputs_stay_and_nodes_move_together() -> None:
    model = branch()
    note, found = sort_nodes(model, {"w2": SEEN})
    assert note.changes == {"frozen branches sorted": 1}
    assert list(found) == ["w2"] and np.array_equal(found["w2"], np.sort(SEEN)[::-1])
    constants = {name: constant_of(value) for name, value in model.graph.initializers.items()}
    order = np.argsort(-SEEN)
    assert np.array_equal(constants["w1"], W1[:, order]) and np.array_equal(constants["c"], BIAS[order])
    assert np.array_equal(constants["w2"], W2[order])
    np.testing.assert_allclose(run_graph(model, X)[0], run_graph(branch(), X)[0], rtol=1e-4, atol=1e-5)


def test_a_branch_that_was_not_seen_stays() -> None:
    model = branch()
    note, found = sort_nodes(model, {"other": SEEN})
    assert not note.changes and not found
    assert np.array_equal(constant_of(model.graph.initializers["w2"]), W2)


def test_constants_that_something_else_reads_stay() -> None:
    model = branch(bias_read_twice=True)
    note, found = sort_nodes(model, {"w2": SEEN})
    assert not note.changes and not found
    assert np.array_equal(constant_of(model.graph.initializers["c"]), BIAS)
