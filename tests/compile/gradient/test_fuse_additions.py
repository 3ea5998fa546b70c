"""Additions that move into matrix products: exact nodes, the same numbers, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from edge_far.compile.gradient.fuse_additions import fuse_additions
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
X, Y, V, W = random_array(0, 10, 16), random_array(1, 10, 24), random_array(2, 16, 24), random_array(3, 24)
INPUTS = {"x": (TOKENS, 16), "y": (TOKENS, 24), "v": (16, 24)}


def compare(build, expected: list[str], changes: int) -> None:
    plain, fused = make_graph(INPUTS, build), make_graph(INPUTS, build)
    note = fuse_additions(fused)
    assert operators(fused) == expected
    assert note.changes == ({"additions inside a product": changes} if changes else {})
    for found, wanted in zip(run_graph(fused, X, Y, V), run_graph(plain, X, Y, V), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_product_adds_to_what_was_there() -> None:
    compare(lambda b, x, y, v: b.unary("Neg", b.add(b.gemm(x, v), y)), ["Gemm", "Neg"], 1)


def test_a_tree_becomes_a_chain_in_the_order_of_its_terms() -> None:
    def build(b, x, y, v):
        first, second = b.gemm(x, v), b.gemm(b.unary("Tanh", x), v)
        return b.unary("Neg", b.add(b.add(second, first), b.unary("Exp", y)))

    # The first product has nothing to add to; the second takes it; what is no product is added.
    compare(build, ["Gemm", "Tanh", "Gemm", "Exp", "Add", "Neg"], 1)


def test_a_bias_keeps_its_place() -> None:
    def build(b, x, y, v):
        return b.unary("Neg", b.add(b.gemm(x, v, b.constant(W, "c")), y))

    compare(build, ["Gemm", "Add", "Neg"], 0)


def test_a_product_with_other_readers_stays_what_it_is() -> None:
    def build(b, x, y, v):
        product = b.gemm(x, v)
        return [b.unary("Neg", b.add(product, y)), b.unary("Tanh", product)]

    compare(build, ["Gemm", "Add", "Neg", "Tanh"], 0)


def test_a_sum_that_is_an_output_keeps_its_name() -> None:
    model = make_graph(INPUTS, lambda b, x, y, v: b.add(y, b.gemm(x, v)))
    fuse_additions(model)
    assert operators(model) == ["Gemm"] and [value.name for value in model.graph.outputs] == ["y0"]
    np.testing.assert_allclose(run_graph(model, X, Y, V)[0], Y + X @ V, rtol=1e-5, atol=1e-5)
