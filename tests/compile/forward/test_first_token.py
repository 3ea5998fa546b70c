"""The last block for first tokens only: smaller shapes, equal numbers, and refusals that say why."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.forward.first_token import compute_first_token_only
from edge_far.compile.graph.builder import INTERNAL, Builder
from edge_far.compile.graph.sizes import TOKENS, dims_of
from tests.tiny_graphs import FLOAT, INT64, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

INPUTS = {"input_ids": (("batch", "sequence"), INT64), "x": ((TOKENS, 6), FLOAT)}
B, S, H = 2, 8, 6
FIRST = f"{INTERNAL}.FirstToken"


def arrays() -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((B, S), np.int64), random_array(0, B * S, H)


def first(b: Builder, value: ir.Value) -> ir.Value:
    return b.op("FirstToken", [value], ("batch", H), domain=INTERNAL)


def test_rows_shrink_up_to_what_other_rows_need() -> None:
    """A feed-forward part after an attention-like mixing: only queries, scores and what follows shrink."""

    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> ir.Value:
        w = b.constant(random_array(1, H, H), "w")
        query, key = b.gemm(x, w), b.gemm(x, w)
        heads = ("batch", "sequence", 2, 3)
        query, key = (b.transpose(b.reshape_to(v, heads), (0, 2, 1, 3)) for v in (query, key))
        weights = b.unary("Softmax", b.matmul(query, key, trans_right=True, alpha=0.3), axis=-1)
        mixed = b.transpose(b.matmul(weights, key), (0, 2, 1, 3))
        total = b.add(b.reshape_to(mixed, (TOKENS, H)), x)
        return first(b, b.unary("Gelu", total))

    model = make_graph(INPUTS, build)
    (before,) = run_graph(model, *arrays())
    note = compute_first_token_only(model)
    (after,) = run_graph(model, *arrays())
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    assert not note.refusals and note.changes == {"operators on first tokens only": 10}
    assert operators(model).count(FIRST) == 1
    shapes = {node.op_type: dims_of(node.outputs[0]) for node in model.graph}
    assert shapes["Softmax"] == ("batch", 2, 1, "sequence")
    assert shapes["Gelu"] == shapes["Add"] == ("batch", H)
    gemms = [dims_of(node.outputs[0]) for node in model.graph if node.op_type == "Gemm"]
    assert sorted(gemms, key=str) == [("batch", H), (TOKENS, H)], "the query shrinks, the key does not"


def test_statistics_of_a_layer_norm_shrink_too() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> ir.Value:
        gamma, beta = b.constant(random_array(3, H), "gamma"), b.constant(random_array(4, H), "beta")
        column = ((TOKENS, 1), FLOAT)
        outputs = [((TOKENS, H), FLOAT), column, column]
        return first(b, b.multi("LayerNormalization", [x, gamma, beta], outputs, axis=-1, epsilon=1e-5)[0])

    model = make_graph(INPUTS, build)
    (before,) = run_graph(model, *arrays())
    compute_first_token_only(model)
    np.testing.assert_allclose(run_graph(model, *arrays())[0], before, rtol=1e-6)
    assert operators(model) == [FIRST, "LayerNormalization"]
    assert [dims_of(value) for value in list(model.graph)[1].outputs] == [("batch", H), ("batch", 1), ("batch", 1)]


def test_refused_where_the_head_reads_all_tokens() -> None:
    model = make_graph(INPUTS, lambda b, _ids, x: b.unary("Gelu", x))
    note = compute_first_token_only(model)
    assert note.refusals == ["0 first-token selections"] and operators(model) == ["Gelu"]


def test_refused_where_the_rows_have_other_readers() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> list[ir.Value]:
        active = b.unary("Gelu", x)
        return [first(b, active), b.reduce("ReduceSum", active, 0, keepdims=False)]

    model = make_graph(INPUTS, build)
    note = compute_first_token_only(model)
    assert note.refusals == ["the rows before the selection have other readers"]
    assert operators(model) == ["Gelu", FIRST, "ReduceSum"]


def test_a_boundary_that_is_no_row_of_tokens_is_left() -> None:
    """The mixed heads have a second reader: the cut moves to the next rows of tokens below."""

    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> list[ir.Value]:
        turned = b.transpose(b.reshape_to(x, ("batch", "sequence", 2, 3)), (0, 2, 1, 3))
        mixed = b.transpose(turned, (0, 2, 1, 3))
        return [first(b, b.unary("Gelu", b.reshape_to(mixed, (TOKENS, H)))), b.unary("Exp", mixed)]

    model = make_graph(INPUTS, build)
    before = run_graph(model, *arrays())
    compute_first_token_only(model)
    for old, new in zip(before, run_graph(model, *arrays()), strict=True):
        np.testing.assert_array_equal(new, old)
    shapes = {node.op_type: dims_of(node.outputs[0]) for node in model.graph}
    assert shapes["Gelu"] == ("batch", H) and shapes["Exp"] == ("batch", "sequence", 2, 3)


def test_rows_that_are_an_output_are_left() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> list[ir.Value]:
        active = b.unary("Gelu", x)
        return [first(b, active), active]

    model = make_graph(INPUTS, build)
    before = run_graph(model, *arrays())
    compute_first_token_only(model)
    for old, new in zip(before, run_graph(model, *arrays()), strict=True):
        np.testing.assert_array_equal(new, old)
