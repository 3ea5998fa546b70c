"""Lowering: each internal operator in exactly which stock operators, and its numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.gradient.lower import lower_internal_operators
from edge_far.compile.graph.builder import INTERNAL, Builder
from tests.tiny_graphs import FLOAT, INT64, UINT8, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

IDS = {"input_ids": (("batch", "sequence"), INT64)}
TOKENS = "batch*sequence"
B, S, H = 3, 8, 16


def lowered(model: ir.Model) -> list[str]:
    note = lower_internal_operators(model)
    assert sum(note.changes.values()) == 1 and not note.refusals
    assert all(node.domain != INTERNAL for node in model.graph)
    return operators(model)


def internal(op_type: str, inputs: dict[str, tuple[Sequence[int | str], ir.DataType]], shape: Sequence[int | str]):
    def build(b: Builder, _ids: ir.Value, *values: ir.Value) -> ir.Value:
        return b.op(op_type, values, shape, domain=INTERNAL)

    return make_graph(IDS | inputs, build)


def ids() -> np.ndarray:
    return np.zeros((B, S), np.int64)


def test_softmax_grad() -> None:
    model = internal("SoftmaxGrad", {"dy": ((TOKENS, H), FLOAT), "y": ((TOKENS, H), FLOAT)}, (TOKENS, H))
    assert lowered(model) == ["Mul", "ReduceSum", "Mul", "Sub"]
    dy, y = random_array(0, B * S, H), np.abs(random_array(1, B * S, H))
    (found,) = run_graph(model, ids(), dy, y)
    np.testing.assert_allclose(found, y * (dy - (dy * y).sum(-1, keepdims=True)), rtol=1e-5, atol=2e-5)


def test_masked_dropout_reads_the_table() -> None:
    inputs = {"x": ((TOKENS, H), FLOAT), "bits": ((TOKENS, 2), UINT8), "table": ((256, 8), FLOAT)}
    model = internal("MaskedDropout", inputs, (TOKENS, H))
    assert lowered(model) == ["Cast", "Gather", "Reshape", "Mul"]
    bits = np.random.default_rng(0).integers(0, 256, (B * S, 2), np.uint8)
    table, x = random_array(1, 256, 8), random_array(2, B * S, H)
    (found,) = run_graph(model, ids(), x, bits, table)
    np.testing.assert_array_equal(found, x * table[bits].reshape(B * S, H))


def test_first_token() -> None:
    model = internal("FirstToken", {"x": ((TOKENS, H), FLOAT)}, ("batch", H))
    assert lowered(model) == ["Shape", "Concat", "Reshape", "Gather"]
    x = random_array(0, B * S, H)
    np.testing.assert_array_equal(run_graph(model, ids(), x)[0], x.reshape(B, S, H)[:, 0])


def test_first_token_grad() -> None:
    model = internal("FirstTokenGrad", {"dy": (("batch", H), FLOAT)}, (TOKENS, H))
    assert lowered(model) == ["Reshape", "Shape", "Sub", "Concat", "Pad", "Reshape"]
    dy = random_array(0, B, H)
    expected = np.zeros((B, S, H), np.float32)
    expected[:, 0] = dy
    np.testing.assert_array_equal(run_graph(model, ids(), dy)[0], expected.reshape(B * S, H))


def test_embedding_grad() -> None:
    inputs = {
        "dy": (("batch", "sequence", H), FLOAT),
        "index": (("batch", "sequence"), INT64),
        "acc": ((9, H), FLOAT),
    }
    model = internal("EmbeddingGrad", inputs, (9, H))
    assert lowered(model) == ["Unsqueeze", "ScatterND"]
    dy, start = random_array(0, B, S, H), random_array(1, 9, H)
    index = np.random.default_rng(2).integers(0, 9, (B, S))
    expected = start.copy()
    np.add.at(expected, index, dy)
    np.testing.assert_allclose(run_graph(model, ids(), dy, index, start)[0], expected, rtol=1e-5, atol=1e-6)


def test_gelu_grad_has_no_operator_of_ours() -> None:
    model = internal("GeluGrad", {"dy": ((TOKENS, H), FLOAT), "x": ((TOKENS, H), FLOAT)}, (TOKENS, H))
    found = lowered(model)
    assert found.count("Erf") == found.count("Exp") == 1
    assert set(found) == {"Mul", "Add", "Erf", "Exp"}


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([0], ["Sub", "Mul", "Mul", "Mul", "Reshape", "Gemm", "Gemm", "Mul", "Add", "Mul", "Sub", "Mul"]),
        ([1], ["Sub", "Mul", "Mul", "ReduceSum"]),
        ([2], ["ReduceSum"]),
    ],
)
def test_layer_norm_grad_builds_only_what_is_read(outputs: list[int], expected: list[str]) -> None:
    shapes = [(TOKENS, H), (TOKENS, H), (H,), (TOKENS, 1), (TOKENS, 1)]

    def build(b: Builder, *values: ir.Value) -> list[ir.Value]:
        kinds = [((TOKENS, H), FLOAT), ((H,), FLOAT), ((H,), FLOAT)]
        made = b.multi("LayerNormalizationGrad", values, kinds, domain=INTERNAL)
        return [made[index] for index in outputs]

    model = make_graph({f"v{number}": (shape, FLOAT) for number, shape in enumerate(shapes)}, build)
    assert sorted(lowered(model)) == sorted(expected)
    dy, x, gamma = random_array(0, 24, H), random_array(1, 24, H).astype(np.float64), random_array(2, H)
    mean = x.mean(1, keepdims=True)
    rate = 1 / np.sqrt(x.var(1, keepdims=True) + 1e-12)
    normal, scaled = (x - mean) * rate, dy * gamma
    oracle = [
        rate * (scaled - scaled.mean(1, keepdims=True) - normal * (scaled * normal).mean(1, keepdims=True)),
        (dy * normal).sum(0),
        dy.sum(0),
    ]
    arrays = [np.asarray(array, np.float32) for array in (dy, x, gamma, mean, rate)]
    for found, index in zip(run_graph(model, *arrays), outputs, strict=True):
        np.testing.assert_allclose(found, oracle[index], rtol=1e-4, atol=1e-5)
