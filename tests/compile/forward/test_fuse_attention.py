"""Attention as one operator, against onnx's own definition of it.

tests/device/engine/test_session.py has its gradient.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from edge_far.compile.forward.fuse_attention import drop_unused_weights, fuse_attention
from tests.tiny_graphs import make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

BATCH, LENGTH, HEADS, WIDTH = 3, 8, 2, 4
SHAPE = ("batch", "sequence", HEADS, WIDTH)
Q, K, V = (random_array(seed, BATCH, LENGTH, HEADS, WIDTH) for seed in range(3))
MASK = np.where(np.arange(LENGTH) < np.array([[8], [5], [1]]), 0.0, -1e9).astype(np.float32)[:, None, None]
IDS = np.zeros((BATCH, LENGTH), np.int64)


def attention(between=lambda b, p: p, queries: str | int = "sequence") -> ir.Model:
    def build(b, ids, q, k, v, mask):
        swap = (0, 2, 1, 3)
        scores = b.matmul(b.transpose(q, swap), b.transpose(k, swap), trans_right=True, alpha=0.5)
        weights = between(b, b.unary("Softmax", b.add(scores, mask), axis=-1))
        return b.unary("Neg", b.transpose(b.matmul(weights, b.transpose(v, swap)), swap))

    inputs = {
        "input_ids": (("batch", "sequence"), ir.DataType.INT64),
        "q": ("batch", queries, HEADS, WIDTH),
        "k": SHAPE,
        "v": SHAPE,
        "mask": ("batch", 1, 1, "sequence"),
    }
    return make_graph(inputs, build)


def by_definition(model: ir.Model, *arrays: np.ndarray) -> np.ndarray:
    feeds = {str(value.name): array for value, array in zip(model.graph.inputs, arrays, strict=True)}
    model.graph.opset_imports.pop("edge_far", None)
    proto = ir.to_proto(model)
    return np.asarray(ReferenceEvaluator(proto).run(None, feeds)[0])


def test_one_operator_gives_the_same_numbers() -> None:
    plain, fused = attention(), attention()
    note = fuse_attention(fused)
    assert note.changes == {"attentions in one operator": 1} and not note.refusals
    found = [name for name in operators(fused) if name not in ("Reshape", "Shape", "Concat")]
    assert found == ["Expand", "Attention", "Neg"]
    assert fused.graph.opset_imports[""] == 23
    expected = run_graph(plain, IDS, Q, K, V, MASK)[0]
    np.testing.assert_allclose(by_definition(fused, IDS, Q, K, V, MASK), expected, rtol=1e-5, atol=1e-6)


def test_one_query_needs_no_larger_mask() -> None:
    plain, fused = attention(queries=1), attention(queries=1)
    fuse_attention(fused)
    assert [name for name in operators(fused) if name != "Reshape"] == ["Attention", "Neg"]
    expected = run_graph(plain, IDS, Q[:, :1], K, V, MASK)[0]
    np.testing.assert_allclose(by_definition(fused, IDS, Q[:, :1], K, V, MASK), expected, rtol=1e-5, atol=1e-6)


def test_dropout_of_the_weights_is_refused() -> None:
    model = attention(between=lambda b, weights: b.mul(weights, b.scalar(2.0)))
    before = operators(model)
    note = fuse_attention(model)
    assert operators(model) == before and len(note.refusals) == 1 and "dropout" in note.refusals[0]
    assert model.graph.opset_imports[""] == 20


def test_weights_are_an_output_only_where_they_are_read() -> None:
    model = attention()
    fuse_attention(model)
    (node,) = [node for node in model.graph if node.op_type == "Attention"]
    assert node.outputs[3].name and not node.outputs[1].name and not node.outputs[2].name
    assert drop_unused_weights(model).changes == {"outputs left out": 1}
    assert not node.outputs[3].name


def test_a_mask_in_which_something_learns_is_refused() -> None:
    """The operator's backward pass gives a mask no gradient."""
    model = attention()
    before = operators(model)
    mask = str(model.graph.inputs[-1].name)
    note = fuse_attention(model, [mask])
    assert operators(model) == before and len(note.refusals) == 1 and "its mask is trained" in note.refusals[0]
    assert fuse_attention(model, ["another"]).changes == {"attentions in one operator": 1}
