"""The canonical form: token rows, linear layers as Gemm, attention products with scale and transposition inside."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.forward.canonicalise import canonicalise
from edge_far.compile.graph.builder import INTERNAL, Builder
from edge_far.errors import Unavailable
from tests.tiny_graphs import FLOAT, INT64, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

IDS = {"input_ids": (("batch", "sequence"), INT64)}
B, S, H = 2, 8, 6
TO_ROWS = ["Reshape"]
IDS_ARRAY = np.zeros((B, S), np.int64)


def matmul(b: Builder, left: ir.Value, right: ir.Value, shape: tuple[int | str, ...]) -> ir.Value:
    return b.op("MatMul", [left, right], shape)


def assert_same_numbers(model: ir.Model, *arrays: np.ndarray) -> None:
    """Canonicalise in place; the outputs stay, but for being rows."""
    before = run_graph(model, *arrays)
    canonicalise(model)
    after = run_graph(model, *arrays)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_allclose(new.reshape(old.shape), old, rtol=1e-5, atol=1e-6)


def test_a_learner_and_a_frozen_layer_become_gemm_with_bias() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value, w: ir.Value, c: ir.Value) -> ir.Value:
        first = matmul(b, x, b.transpose(w, (1, 0)), ("batch", "sequence", 4))
        active = b.unary("Gelu", b.add(first, c))
        second = matmul(b, active, b.constant(random_array(8, 4, H), "frozen"), ("batch", "sequence", H))
        total = b.add(second, x)
        index = b.constant(np.array(0, np.int64), "zero")
        return b.op("Gather", [total, index], ("batch", H), axis=1)

    model = make_graph(IDS | {"x": (("batch", "sequence", H), FLOAT), "w": ((4, H), FLOAT), "c": ((4,), FLOAT)}, build)
    arrays = (IDS_ARRAY, random_array(0, B, S, H), random_array(1, 4, H), random_array(2, 4))
    assert_same_numbers(model, *arrays)
    assert operators(model) == [*TO_ROWS, "Gemm", "Gelu", "Gemm", "Add", f"{INTERNAL}.FirstToken"]
    first, second = [node for node in model.graph if node.op_type == "Gemm"]
    assert first.attributes["transB"].as_int() == 1 and second.attributes["transB"].as_int() == 0
    assert [value.name for value in first.inputs[1:]] == ["w", "c"]


def test_attention_products_swallow_scale_and_transposition() -> None:
    heads, width = 3, 4

    def build(b: Builder, _ids: ir.Value, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
        by_head = (0, 2, 1, 3)
        scores_shape = ("batch", heads, "sequence", "sequence")
        keys = b.transpose(k, (0, 2, 3, 1))
        scores = matmul(b, b.transpose(q, by_head), keys, scores_shape)
        weights = b.unary("Softmax", b.mul(scores, b.scalar(0.5)), axis=-1)
        return matmul(b, weights, b.transpose(v, by_head), ("batch", heads, "sequence", width))

    shape = ("batch", "sequence", heads, width)
    model = make_graph(IDS | dict.fromkeys("qkv", (shape, FLOAT)), build)
    assert_same_numbers(model, IDS_ARRAY, *(random_array(n, B, S, heads, width) for n in range(3)))
    fused = "com.microsoft.FusedMatMul"
    assert operators(model) == ["Transpose", "Transpose", fused, "Softmax", "Transpose", fused]
    scores = next(node for node in model.graph if node.op_type == "FusedMatMul")
    assert scores.attributes["alpha"].as_float() == 0.5 and scores.attributes["transB"].as_int() == 1


def test_layer_normalisation_gets_its_statistics() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> ir.Value:
        gamma, beta = b.constant(random_array(3, H), "gamma"), b.constant(random_array(4, H), "beta")
        normal = b.op("LayerNormalization", [x, gamma, beta], ("batch", "sequence", H), axis=-1, epsilon=1e-5)
        return b.op("Gather", [normal, b.constant(np.array(0, np.int64), "zero")], ("batch", H), axis=1)

    model = make_graph(IDS | {"x": (("batch", "sequence", H), FLOAT)}, build)
    assert_same_numbers(model, IDS_ARRAY, random_array(0, B, S, H))
    assert operators(model) == [*TO_ROWS, "LayerNormalization", f"{INTERNAL}.FirstToken"]
    assert len(next(n for n in model.graph if n.op_type == "LayerNormalization").outputs) == 3


def test_split_into_heads_and_back_skips_the_three_dimensional_form() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> ir.Value:
        weight = b.constant(random_array(5, H, H), "w")
        product = matmul(b, x, weight, ("batch", "sequence", H))
        heads = b.op("Reshape", [product, b.constant(np.array([0, 0, 2, 3]), "split")], ("batch", "sequence", 2, 3))
        joined = b.op("Reshape", [heads, b.constant(np.array([0, 0, 6]), "join")], ("batch", "sequence", H))
        return b.op("Gather", [joined, b.constant(np.array(0, np.int64), "zero")], ("batch", H), axis=1)

    model = make_graph(IDS | {"x": (("batch", "sequence", H), FLOAT)}, build)
    assert_same_numbers(model, IDS_ARRAY, random_array(0, B, S, H))
    shapes = [tuple(node.outputs[0].shape) for node in model.graph if node.op_type == "Reshape"]
    assert ["batch*sequence", H] in [[str(d) if not isinstance(d, int) else d for d in s] for s in shapes]
    assert operators(model)[-1] == f"{INTERNAL}.FirstToken"


def test_a_head_that_reads_another_token_is_refused() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value) -> ir.Value:
        active = b.unary("Gelu", x)
        return b.op("Gather", [active, b.constant(np.array(3, np.int64), "three")], ("batch", H), axis=1)

    model = make_graph(IDS | {"x": (("batch", "sequence", H), FLOAT)}, build)
    with pytest.raises(Unavailable, match=r"node t\.Gather\.1: the model's head reads tokens other than the first"):
        canonicalise(model)


def test_a_computed_bias_is_refused_by_name() -> None:
    def build(b: Builder, _ids: ir.Value, x: ir.Value, c: ir.Value) -> ir.Value:
        product = matmul(b, x, b.constant(random_array(0, H, H), "w"), ("batch", "sequence", H))
        return b.add(product, b.unary("Exp", c))

    model = make_graph(IDS | {"x": (("batch", "sequence", H), FLOAT), "c": ((H,), FLOAT)}, build)
    with pytest.raises(Unavailable, match=r"node rows\.Gemm\.\d+: the bias 't\.Exp\.\d+' of a linear layer is"):
        canonicalise(model)
