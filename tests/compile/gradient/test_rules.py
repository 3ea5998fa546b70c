"""Each gradient rule against torch autograd, for its operator alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("torch")

import onnx_ir as ir
import torch

from edge_far.compile.forward.fuse_attention import WEIGHTS_AFTER_SOFTMAX
from edge_far.compile.gradient.rules import RULES
from edge_far.compile.graph.builder import INTERNAL, MICROSOFT, Builder
from edge_far.compile.graph.sizes import TOKENS, Dim
from edge_far.errors import Unavailable
from tests.tiny_graphs import FLOAT, INT64, UINT8, make_graph, random_array, run_graph

pytestmark = pytest.mark.host

B, S, H, FFN = 2, 8, 6, 5
SIZES = {"batch": B, "sequence": S, "2*sequence": 2 * S, TOKENS: B * S, "sequence/8": S // 8}
Shape = Sequence[Dim]


@dataclass(frozen=True)
class RuleCase:
    """An operator with inputs of these shapes; `wanted` are the inputs whose gradients are compared."""

    key: tuple[str, str]
    shapes: tuple[Shape, ...]
    node: Callable[..., ir.Value]
    reference: Callable[..., object]
    wanted: tuple[int, ...]
    name: str = ""


def norm_node(b: Builder, x: ir.Value, gamma: ir.Value, beta: ir.Value) -> ir.Value:
    statistics = ((TOKENS, 1), FLOAT)
    outputs = [((TOKENS, H), FLOAT), statistics, statistics]
    return b.multi("LayerNormalization", [x, gamma, beta], outputs, axis=-1, epsilon=1e-5)[0]


def norm_reference(x, gamma, beta):
    return torch.nn.functional.layer_norm(x, (H,), gamma, beta, 1e-5)


def attention_node(b: Builder, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
    """Two heads without a mask; the fourth output is the weights."""
    heads = ("batch", 2, "sequence", H // 2)
    outputs = [(("batch", "sequence", H), FLOAT), (heads, FLOAT), (heads, FLOAT)]
    weights = (("batch", 2, "sequence", "sequence"), FLOAT)
    attributes = {"q_num_heads": 2, "kv_num_heads": 2, "scale": 0.5, "qk_matmul_output_mode": WEIGHTS_AFTER_SOFTMAX}
    return b.multi("Attention", [q, k, v], [*outputs, weights], **attributes)[0]


def attention_reference(q, k, v):
    q, k, v = (x.reshape(B, S, 2, H // 2).transpose(1, 2) for x in (q, k, v))
    return (torch.softmax(0.5 * q @ k.transpose(2, 3), -1) @ v).transpose(1, 2).reshape(B, S, H)


ANGLES = np.random.default_rng(5).uniform(0, 6, (32, 2)).astype(np.float32)  # of positions, and of pairs of numbers


def rotary_node(b: Builder, x: ir.Value) -> ir.Value:
    tables = [b.constant(np.cos(ANGLES), "cosines"), b.constant(np.sin(ANGLES), "sines")]
    return b.op("Rotary", [x, *tables], ("batch", "sequence", 2, 4), domain=INTERNAL)


def rotary_reference(x):
    """Pairs of numbers as complex ones: multiplied by that of the angle."""
    turned = torch.complex(x[..., :2], x[..., 2:]) * torch.polar(torch.ones(1), torch.tensor(ANGLES[:S, None]))
    return torch.cat((turned.real, turned.imag), -1)


def take_heads(b: Builder, x: ir.Value, heads: list[int]) -> ir.Value:
    return b.op("Gather", [x, b.constant(np.array(heads), "heads")], ("batch", len(heads), "sequence", 3), axis=1)


CASES = [
    RuleCase(
        ("", "Gemm"),
        ((TOKENS, H), (H, FFN), (FFN,)),
        lambda b, x, w, c: b.gemm(x, w, c),
        lambda x, w, c: x @ w + c,
        (0, 1, 2),
        "Gemm",
    ),
    RuleCase(
        ("", "Gemm"),
        ((TOKENS, H), (FFN, H), (FFN,)),
        lambda b, x, w, c: b.gemm(x, w, c, trans_right=True),
        lambda x, w, c: x @ w.T + c,
        (0, 1, 2),
        "Gemm-transB",
    ),
    RuleCase(
        (MICROSOFT, "FusedMatMul"),
        (("batch", 3, "sequence", 4), ("batch", 3, "sequence", 4)),
        lambda b, q, k: b.matmul(q, k, trans_right=True, alpha=0.5),
        lambda q, k: 0.5 * q @ k.transpose(2, 3),
        (0, 1),
        "FusedMatMul-transB-alpha",
    ),
    RuleCase(
        (MICROSOFT, "FusedMatMul"),
        (("batch", 3, "sequence", "sequence"), ("batch", 3, "sequence", 4)),
        lambda b, p, v: b.matmul(p, v),
        lambda p, v: p @ v,
        (0, 1),
        "FusedMatMul",
    ),
    RuleCase(
        (INTERNAL, "TanhGelu"),
        ((TOKENS, H),),
        lambda b, x: b.op("TanhGelu", [x], (TOKENS, H), domain=INTERNAL),
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        (0,),
        "TanhGelu",
    ),
    RuleCase(
        (INTERNAL, "Silu"),
        ((TOKENS, H),),
        lambda b, x: b.op("Silu", [x], (TOKENS, H), domain=INTERNAL),
        torch.nn.functional.silu,
        (0,),
        "Silu",
    ),
    RuleCase(
        (INTERNAL, "Rotary"),
        (("batch", "sequence", 2, 4),),
        lambda b, x: rotary_node(b, x),
        lambda x: rotary_reference(x),
        (0,),
        "Rotary",
    ),
    RuleCase(
        (INTERNAL, "Shifted"),
        (("batch", 3, "sequence", "2*sequence"),),
        lambda b, x: b.op("Shifted", [x], ("batch", 3, "sequence", "sequence"), domain=INTERNAL),
        lambda x: torch.stack([x[:, :, row, S - row : 2 * S - row] for row in range(S)], 2),
        (0,),
        "Shifted",
    ),
    RuleCase(
        (MICROSOFT, "FusedMatMul"),
        (("batch", 3, "sequence", 4), (1, 3, "2*sequence", 4)),
        lambda b, q, k: b.matmul(q, k, trans_right=True),
        lambda q, k: q @ k.transpose(2, 3),
        (0, 1),
        "FusedMatMul-of-one-for-all-texts",
    ),
    RuleCase(
        ("", "Gather"),
        ((7, H),),
        lambda b, x: b.op("Gather", [b.unary("Tanh", x), b.constant(np.array([6, 0, 6, 2]), "rows")], (4, H), axis=0),
        lambda x: torch.tanh(x)[[6, 0, 6, 2]],
        (0,),
        "Gather-of-a-computed-table",
    ),
    RuleCase(("", "Mul"), ((TOKENS, H), (TOKENS, H)), lambda b, x, y: b.mul(x, y), lambda x, y: x * y, (0, 1), "Mul"),
    RuleCase(
        ("", "Mul"), ((TOKENS, H), (1, H)), lambda b, x, y: b.mul(x, y), lambda x, y: x * y, (0, 1), "Mul-broadcast"
    ),
    RuleCase(
        ("", "Div"), ((TOKENS, H), (TOKENS, 1)), lambda b, x, y: b.binary("Div", x, y), lambda x, y: x / y, (0,), "Div"
    ),
    RuleCase(
        ("", "Gather"),
        (("batch", 5, "sequence", 3),),
        lambda b, x: take_heads(b, x, [3, 1]),
        lambda x: x[:, [3, 1]],
        (0,),
        "Gather-heads",
    ),
    RuleCase(
        ("", "Add"),
        ((TOKENS, H), (TOKENS, H)),
        lambda b, x, y: b.add(x, y),
        lambda x, y: x + y,
        (0, 1),
        "Add",
    ),
    RuleCase(
        ("", "Add"),
        (("batch", "sequence", H), (1, "sequence", H), (H,)),
        lambda b, x, y, z: b.add(b.add(x, y), z),
        lambda x, y, z: x + y + z,
        (0, 1, 2),
        "Add-broadcast",
    ),
    RuleCase(
        ("", "LayerNormalization"),
        ((TOKENS, H), (H,), (H,)),
        norm_node,
        norm_reference,
        (0, 1, 2),
        "LayerNormalization",
    ),
    RuleCase(
        ("", "LayerNormalization"),
        ((TOKENS, H), (H,), (H,)),
        norm_node,
        norm_reference,
        (0,),
        "LayerNormalization-input-only",
    ),
    RuleCase(
        ("", "Softmax"),
        (("batch", 3, "sequence", "sequence"),),
        lambda b, x: b.unary("Softmax", x, axis=-1),
        lambda x: torch.softmax(x, -1),
        (0,),
        "Softmax",
    ),
    RuleCase(
        ("", "Attention"),
        (("batch", "sequence", H), ("batch", "sequence", H), ("batch", "sequence", H)),
        attention_node,
        attention_reference,
        (0, 1, 2),
        "Attention",
    ),
    RuleCase(
        ("", "Gelu"),
        ((TOKENS, H),),
        lambda b, x: b.unary("Gelu", x),
        torch.nn.functional.gelu,
        (0,),
        "Gelu",
    ),
    RuleCase(("", "Tanh"), ((TOKENS, H),), lambda b, x: b.unary("Tanh", x), torch.tanh, (0,), "Tanh"),
    RuleCase(("", "Relu"), ((TOKENS, H),), lambda b, x: b.unary("Relu", x), torch.relu, (0,), "Relu"),
    RuleCase(
        ("", "Reshape"),
        ((TOKENS, H),),
        lambda b, x: b.reshape_to(x, ("batch", "sequence", 2, 3)),
        lambda x: x.reshape(B, S, 2, 3),
        (0,),
        "Reshape",
    ),
    RuleCase(
        ("", "Transpose"),
        (("batch", "sequence", 3, 4),),
        lambda b, x: b.transpose(x, (0, 2, 3, 1)),
        lambda x: x.permute(0, 2, 3, 1),
        (0,),
        "Transpose",
    ),
    RuleCase(
        (INTERNAL, "FirstToken"),
        ((TOKENS, H),),
        lambda b, x: b.op("FirstToken", [x], ("batch", H), domain=INTERNAL),
        lambda x: x.reshape(B, S, H)[:, 0],
        (0,),
        "FirstToken",
    ),
]


def concrete(shape: Shape) -> tuple[int, ...]:
    return tuple(SIZES[dim] if isinstance(dim, str) else dim for dim in shape)


def assert_rule(model: ir.Model, values: dict[str, np.ndarray], wanted: Sequence[int], expected) -> None:
    """Append the gradients of sum(y * dy) to the one-operator model, run it, and compare."""
    graph = model.graph
    (output,) = graph.outputs
    dy = ir.Value(name="dy", shape=output.shape, type=ir.TensorType(FLOAT))
    graph.inputs.append(dy)
    inputs = graph.inputs[1:-1]
    gradients = {output: dy}
    for node in reversed(list(graph)):
        if (node.domain, node.op_type) not in RULES or node.outputs[0] not in gradients:
            continue
        b = Builder(graph, "g")
        want = [
            value in [inputs[i] for i in wanted] or (value is not None and value.producer() is not None)
            for value in node.inputs
        ]
        for index, value in RULES[node.domain, node.op_type](node, gradients[node.outputs[0]], want, b):
            assert want[index], f"the gradient of input {index} was not asked for"
            gradients[node.inputs[index]] = value
        graph.extend(b.nodes)
    graph.outputs[:] = [gradients[inputs[index]] for index in wanted]
    for found, reference in zip(run_graph(model, **values), expected, strict=True):
        assert found.shape == tuple(reference.shape)
        np.testing.assert_allclose(found, reference.numpy(), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule_equals_autograd(case: RuleCase) -> None:
    inputs = {"input_ids": (("batch", "sequence"), INT64)} | {
        f"x{number}": (shape, FLOAT) for number, shape in enumerate(case.shapes)
    }
    model = make_graph(inputs, lambda b, _ids, *values: case.node(b, *values))
    arrays = {f"x{number}": random_array(number, *concrete(shape)) for number, shape in enumerate(case.shapes)}
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays.values()]
    result = case.reference(*tensors)
    dy = random_array(9, *result.shape)
    expected = torch.autograd.grad(result, [tensors[i] for i in case.wanted], torch.tensor(dy))
    ids = np.zeros((B, S), np.int64)
    assert_rule(model, {"input_ids": ids, **arrays, "dy": dy}, case.wanted, expected)


def test_masked_dropout_rule() -> None:
    inputs = {
        "input_ids": (("batch", "sequence"), INT64),
        "x": ((TOKENS, 16), FLOAT),
        "bits": ((TOKENS, 2), UINT8),
        "factors": ((256, 8), FLOAT),
    }
    model = make_graph(
        inputs,
        lambda b, _ids, x, bits, table: b.op("MaskedDropout", [x, bits, table], (TOKENS, 16), domain=INTERNAL),
    )
    bits = np.random.default_rng(0).integers(0, 256, (B * S, 2), np.uint8)
    factors = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little") / np.float32(0.9)
    mask = np.unpackbits(bits, axis=1, bitorder="little") / np.float32(0.9)
    dy, x = random_array(1, B * S, 16), random_array(2, B * S, 16)
    feeds = {"input_ids": np.zeros((B, S), np.int64), "x": x, "bits": bits, "factors": factors.astype(np.float32)}
    (forward,) = run_graph(model, **feeds)
    np.testing.assert_allclose(forward, x * mask, rtol=1e-6)
    assert_rule(model, feeds | {"dy": dy}, [0], [torch.tensor(dy * mask)])


def test_gather_rule_sums_repeated_rows_into_the_accumulator() -> None:
    inputs = {"input_ids": (("batch", "sequence"), INT64), "table": ((7, H), FLOAT), "acc": ((7, H), FLOAT)}
    model = make_graph(
        inputs, lambda b, ids, table, _acc: b.op("Gather", [table, ids], ("batch", "sequence", H), axis=0)
    )
    graph = model.graph
    (output,) = graph.outputs
    dy = ir.Value(name="dy", shape=output.shape, type=ir.TensorType(FLOAT))
    graph.inputs.append(dy)
    b = Builder(graph, "g")
    gather = next(iter(graph))
    ((index, gradient),) = RULES["", "Gather"](gather, dy, [True, False], b)
    assert index == 0
    b.nodes[-1].resize_inputs(3)
    b.nodes[-1].replace_input_with(2, graph.inputs[2])
    graph.extend(b.nodes)
    graph.outputs[:] = [gradient]
    ids = np.random.default_rng(0).integers(0, 5, (B, S))
    table = torch.tensor(random_array(0, 7, H), requires_grad=True)
    gradient_of_rows = random_array(1, B, S, H)
    (expected,) = torch.autograd.grad(table[ids], table, torch.tensor(gradient_of_rows))
    start = random_array(2, 7, H)
    (found,) = run_graph(model, input_ids=ids, table=table.detach().numpy(), acc=start, dy=gradient_of_rows)
    np.testing.assert_allclose(found, start + expected.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[5:], start[5:])


def test_a_selection_that_takes_a_head_twice_has_no_rule() -> None:
    model = make_graph({"x": ("batch", 5, "sequence", 3)}, lambda b, x: take_heads(b, x, [1, 1]))
    (node,) = model.graph
    with pytest.raises(Unavailable, match="only a constant selection"):
        next(RULES["", "Gather"](node, node.outputs[0], [True, False], Builder(model.graph, "g")))


def test_gelu_gradient_at_the_ends() -> None:
    model = make_graph(
        {"input_ids": (("batch", "sequence"), INT64), "x": ((TOKENS, 4), FLOAT)},
        lambda b, _ids, x: b.unary("Gelu", x),
    )
    x = np.array([[-40.0, -6.0, 6.0, 40.0], [0.0, -0.75, 1e-20, math.pi]], np.float32)
    tensor = torch.tensor(x, requires_grad=True)
    (expected,) = torch.autograd.grad(torch.nn.functional.gelu(tensor).sum(), tensor)
    feeds = {"input_ids": np.zeros((1, 2), np.int64), "x": x, "dy": np.ones_like(x)}
    assert_rule(model, feeds, [0], [expected])


def test_only_the_exact_gelu_has_a_rule() -> None:
    model = make_graph({"x": (TOKENS, 4)}, lambda b, x: b.unary("Gelu", x, approximate="tanh"))
    (node,) = model.graph
    rule = RULES["", "Gelu"](node, node.outputs[0], [True], Builder(model.graph, "g"))
    with pytest.raises(Unavailable, match="only the exact GELU"):
        next(rule)


def test_every_rule_is_tested() -> None:
    assert {case.key for case in CASES} | {(INTERNAL, "MaskedDropout"), ("", "Gather")} == set(RULES)
