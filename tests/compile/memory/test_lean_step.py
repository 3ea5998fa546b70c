"""The passes of step-lean: cheap values recomputed, inputs of attention in 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.forward.fuse_attention import WEIGHTS_AFTER_SOFTMAX
from edge_far.compile.graph.builder import MICROSOFT
from edge_far.compile.memory.recompute_cheap_values import recompute_cheap_values
from edge_far.compile.memory.stash_in_16_bits import stash_in_16_bits
from tests.tiny_graphs import FLOAT, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

BATCH, LENGTH, HIDDEN, HEADS = 2, 8, 6, 2
TOKENS = "batch*sequence"
Q, K, V = (random_array(seed, BATCH, LENGTH, HIDDEN) for seed in range(3))
MASK = np.where(np.arange(LENGTH) < 6, 0.0, -1e9).astype(np.float32) * np.ones((BATCH, 1, LENGTH, 1), np.float32)
SWAP = (0, 2, 1, 3)


def step_with_attention() -> ir.Model:
    """A loss, and a backward part that reads the weights and the transposed queries and keys."""

    def build(b, q, k, v, mask):
        by_heads = ("batch", HEADS, "sequence", HIDDEN // HEADS)
        weights = ("batch", HEADS, "sequence", "sequence")
        outputs = [(("batch", "sequence", HIDDEN), FLOAT), (by_heads, FLOAT), (by_heads, FLOAT), (weights, FLOAT)]
        attributes = {"q_num_heads": HEADS, "kv_num_heads": HEADS, "scale": 0.5}
        y, _, _, p = b.multi(
            "Attention", [q, k, v, mask], outputs, qk_matmul_output_mode=WEIGHTS_AFTER_SOFTMAX, **attributes
        )
        for unused in b.nodes[-1].outputs[1:3]:
            unused.name = ""
        loss = b.op("ReduceSum", [y], (), keepdims=0)
        split = [b.reshape_keeping(x, ("batch", "sequence"), (HEADS, HIDDEN // HEADS)) for x in (q, k)]
        query, key = (b.transpose(x, SWAP) for x in split)
        return [loss, b.matmul(p, query), b.matmul(p, key)]

    shape = ("batch", "sequence", HIDDEN)
    inputs = {"q": shape, "k": shape, "v": shape, "mask": ("batch", 1, "sequence", "sequence")}
    return make_graph(inputs, build)


def test_attention_weights_are_made_again_from_what_is_transposed_anyway() -> None:
    plain, lean = step_with_attention(), step_with_attention()
    note = recompute_cheap_values(lean)
    assert note.changes == {"attention weights recomputed": 1}
    forward = ["Attention", "ReduceSum"]
    again = ["Reshape", "Transpose", "Reshape", "Transpose", "com.microsoft.FusedMatMul", "Add", "Softmax"]
    assert operators(lean) == [*forward, *again, "com.microsoft.FusedMatMul", "com.microsoft.FusedMatMul"]
    assert not next(node for node in lean.graph if node.op_type == "Attention").outputs[3].name
    for found, expected in zip(run_graph(lean, Q, K, V, MASK), run_graph(plain, Q, K, V, MASK), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("silu", [False, True])
def test_a_gelu_or_silu_is_made_again_where_its_input_is_kept_anyway(silu: bool) -> None:
    def build(b, x):
        y = b.unary("QuickGelu", x, domain=MICROSOFT, alpha=1.0) if silu else b.unary("Gelu", x)
        loss = b.op("ReduceSum", [y], (), keepdims=0)
        return [loss, b.mul(b.unary("Erf", x), y)]

    plain, lean = (make_graph({"x": (TOKENS, 6)}, build) for _ in range(2))
    assert recompute_cheap_values(lean).changes == {"activations recomputed": 1}
    name = f"{MICROSOFT}.QuickGelu" if silu else "Gelu"
    assert operators(lean) == [name, "ReduceSum", "Erf", name, "Mul"]
    x = random_array(4, 10, 6)
    np.testing.assert_array_equal(run_graph(lean, x)[1], run_graph(plain, x)[1])


def test_attention_inputs_are_kept_in_16_bits_for_the_backward_pass_alone() -> None:
    plain, half = step_with_attention(), step_with_attention()
    assert stash_in_16_bits(half).changes == {"activations kept in 16 bits": 2}, "nothing reads v again"
    assert operators(half)[:4].count("Cast") == 2 and operators(half).count("Cast") == 4
    for output, (found, expected) in enumerate(
        zip(run_graph(half, Q, K, V, MASK), run_graph(plain, Q, K, V, MASK), strict=True)
    ):
        # The loss reads what it read before; sums of weights that add up to one keep the error of float16.
        tolerance = 0.0 if output == 0 else 2.0**-11 * np.abs(np.stack([Q, K])).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
