"""Expands the operators of the domain `edge_far` into operators that stock onnxruntime has CPU kernels for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import INTERNAL, MICROSOFT, Builder
from edge_far.compile.graph.edits import insert_before, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import BATCH, SEQUENCE, TOKENS, Dim, dims_of

__all__ = ["lower_internal_operators"]

# A gamma smaller than this is not divided by; this is.
SMALLEST_DIVISOR = 1e-6

Lowering = Callable[[ir.Node, Builder], list[ir.Value | None]]


def lower_internal_operators(model: ir.Model) -> PassNote:
    """Replace every operator of ours; afterwards the graph holds standard and com.microsoft operators only."""
    note = PassNote("lower_internal_operators")
    graph = model.graph
    for node in [node for node in graph if node.domain == INTERNAL]:
        builder = Builder(graph, "low")
        results = _LOWERINGS[node.op_type](node, builder)
        insert_before(graph, node, builder.nodes)
        for old, new in zip(node.outputs, results, strict=True):
            if new is not None:
                replace_value(old, new)
        graph.remove(node, safe=True)
        note.changed(node.op_type)
    remove_dead_nodes(model)
    return note


def _values(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _used(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _layer_norm_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """With n = (x - mean) * rate and w = gamma / width: dx = rate * (dy*gamma - dy.w - n * (dy*n).w).

    The two row means are matrix-vector products, which read their operand once and write a column.
    """
    dy, x, gamma, mean, rate = _values(node)
    dx, dgamma, dbeta = node.outputs
    width = int(dims_of(gamma)[0])
    normal = b.mul(b.sub(x, mean), rate)
    weighted = b.mul(dy, normal)
    results: list[ir.Value | None] = [None, None, None]
    if _used(dgamma):
        results[1] = b.reduce("ReduceSum", weighted, 0, keepdims=False)
    if _used(dbeta):
        results[2] = b.reduce("ReduceSum", dy, 0, keepdims=False)
    if _used(dx):
        share = b.reshape_to(b.mul(gamma, b.scalar(1.0 / width)), (width, 1))
        mean_product = b.gemm(weighted, share)
        mean_gradient = b.gemm(dy, share)
        correction = b.add(b.mul(normal, mean_product), mean_gradient)
        results[0] = b.mul(b.sub(b.mul(dy, gamma), correction), rate)
    return results


def _layer_norm_grad_from_output(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """The normalised input n = (y - beta) / gamma, with gamma kept away from zero, is never made.

    With v = dy*y, the sums that need n are sums of v and of dy, and n's part of dx is one product with y and one
    product of two columns: four passes less than with n.
    """
    dy, y, gamma, beta, rate = _values(node)
    dx, dgamma, dbeta = node.outputs
    width = int(dims_of(gamma)[0])
    tiny = b.scalar(SMALLEST_DIVISOR)
    lost = b.op("Less", [b.unary("Abs", gamma), tiny], dims_of(gamma), dtype=ir.DataType.BOOL)
    inverse = b.binary("Div", b.scalar(1.0), b.op("Where", [lost, tiny, gamma], dims_of(gamma)))
    product = b.mul(dy, y)
    results: list[ir.Value | None] = [None, None, None]
    sum_dy = b.reduce("ReduceSum", dy, 0, keepdims=False) if _used(dbeta) or _used(dgamma) else None
    if _used(dgamma):
        assert sum_dy is not None
        sum_product = b.reduce("ReduceSum", product, 0, keepdims=False)
        results[1] = b.mul(b.sub(sum_product, b.mul(sum_dy, beta)), inverse)
    if _used(dbeta):
        results[2] = sum_dy
    if _used(dx):
        share = b.scalar(-1.0 / width)
        # Of each row, side by side: the mean of dx * n, and minus that of dx.
        means = b.constant(np.array([[1.0 / width, 0.0]] * width, np.float32), f"means.{width}")
        shares = [b.reshape_to(b.mul(vector, share), (width, 1)) for vector in (beta, gamma)]
        columns = b.gemm(dy, b.op("Concat", shares, (width, 2), axis=1), b.gemm(product, means))
        first = b.constant(np.array([0], np.int64), "first_column")
        mean_product = b.op("Gather", [columns, first], (dims_of(dy)[0], 1), axis=1)
        rows = [b.mul(beta, inverse), b.constant(np.ones(width, np.float32), f"ones.{width}")]
        pair = b.op("Concat", [b.reshape_to(row, (1, width)) for row in rows], (2, width), axis=0)
        part = b.mul(b.mul(y, inverse), mean_product)
        results[0] = b.mul(b.gemm(columns, pair, b.sub(b.mul(dy, gamma), part)), rate)
    return results


def _softmax_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    dy, y = _values(node)
    product = b.mul(dy, y)
    total = b.reduce("ReduceSum", product, -1, keepdims=True)
    return [b.sub(product, b.mul(y, total))]


def _gelu_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    dy, x = _values(node)
    return [b.mul(dy, gelu_derivative(x, b))]


def gelu_derivative(x: ir.Value, b: Builder) -> ir.Value:
    """Return cdf(x) + x * pdf(x), elementwise."""
    error = b.unary("Erf", b.mul(x, b.scalar(math.sqrt(0.5))))
    cdf = b.add(b.mul(error, b.scalar(0.5)), b.scalar(0.5))
    density = b.unary("Exp", b.mul(b.mul(x, x), b.scalar(-0.5)))
    return b.add(b.mul(b.mul(density, b.scalar(1.0 / math.sqrt(2.0 * math.pi))), x), cdf)


def _tanh_gelu(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    (x,) = _values(node)
    return [b.unary("Gelu", x, approximate="tanh")]


def _tanh_gelu_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """With t = tanh(u), u = a x (1 + c x x): dx = dy * ((1 + t) / 2 + x (1 - t t) / 2 * a (1 + 3 c x x))."""
    dy, x = _values(node)
    slope, cubic, half, one = math.sqrt(2.0 / math.pi), 0.044715, b.scalar(0.5), b.scalar(1.0)
    square = b.mul(x, x)
    inner = b.mul(x, b.add(b.mul(square, b.scalar(slope * cubic)), b.scalar(slope)))
    tangent = b.unary("Tanh", inner)
    rise = b.add(b.mul(square, b.scalar(3.0 * slope * cubic)), b.scalar(slope))
    steep = b.mul(b.mul(b.sub(one, b.mul(tangent, tangent)), rise), x)
    return [b.mul(dy, b.mul(b.add(b.add(tangent, one), steep), half))]


def _silu(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """QuickGelu is x * sigmoid(alpha x)."""
    (x,) = _values(node)
    return [b.unary("QuickGelu", x, domain=MICROSOFT, alpha=1.0)]


def _silu_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """With s = sigmoid(x): dx = dy * (s + x s (1 - s))."""
    dy, x = _values(node)
    sigmoid = b.unary("Sigmoid", x)
    rest = b.mul(b.mul(x, sigmoid), b.sub(b.scalar(1.0), sigmoid))
    return [b.mul(dy, b.add(sigmoid, rest))]


def _relu_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """From the output y: dx = dy where y > 0, else 0."""
    dy, y = _values(node)
    positive = b.op("Greater", [y, b.scalar(0.0)], dims_of(y), dtype=ir.DataType.BOOL)
    return [b.op("Where", [positive, dy, b.scalar(0.0)], dims_of(y))]


def _rotary(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """RotaryEmbedding on [batch, sequence, heads * width]; positions begin at 0."""
    x, *tables = _values(node)
    batch, length, heads, width = dims_of(x)
    assert isinstance(heads, int) and isinstance(width, int)
    ends = [b.constant(np.array([0], np.int64), "slice.start"), b.input_shape(1, 2)]
    axis = b.constant(np.array([0], np.int64), "slice.axis")
    rows = [b.op("Slice", [table, *ends, axis], (SEQUENCE, width // 2)) for table in tables]
    joined = b.reshape_keeping(x, (batch, length), (heads * width,))
    inputs = [joined, b.constant(np.array([0], np.int64), "first_position"), *rows]
    turned = b.op("RotaryEmbedding", inputs, dims_of(joined), domain=MICROSOFT, num_heads=heads)
    return [b.reshape_keeping(turned, (batch, length), (heads, width))]


def _shifted(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """Without its first S numbers, [.., S, 2 S] has S rows of 2 S - 1, of which the first S numbers are kept."""
    (x,) = _values(node)
    dims, flat, fewer, shorter = _flattened(node.outputs[0])
    length = b.input_shape(1, 2)
    ends = [b.constant(np.array([number], np.int64), f"slice.{number}") for number in (0, _TO_THE_END, 2)]
    rows = b.op("Slice", [b.op("Reshape", [x, _shape(dims, [-1], b)], flat), length, ends[1], ends[2]], fewer)
    width = b.sub(b.add(length, length), b.constant(np.array([1], np.int64), "one"))
    begun = b.op("Reshape", [rows, _shape(dims, [length, width], b)], shorter)
    last = b.constant(np.array([3], np.int64), "slice.3")
    return [b.op("Slice", [begun, ends[0], length, last], dims_of(node.outputs[0]))]


def _shifted_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """Rows of S numbers become rows of 2 S - 1, and S zeros come before all of them."""
    (dy,) = _values(node)
    dims, flat, fewer, shorter = _flattened(dy)
    length = b.input_shape(1, 2)
    less = b.sub(length, b.constant(np.array([1], np.int64), "one"))
    zeros = {count: b.constant(np.zeros(count, np.int64), f"zeros.{count}") for count in (2, 3, 7)}
    after_row = b.op("Concat", [zeros[7], less], (8,), dtype=ir.DataType.INT64, axis=0)
    before_all = b.op("Concat", [zeros[2], length, zeros[3]], (6,), dtype=ir.DataType.INT64, axis=0)
    rows = b.op("Reshape", [b.op("Pad", [dy, after_row], shorter, mode="constant"), _shape(dims, [-1], b)], fewer)
    whole = b.op("Pad", [rows, before_all], flat, mode="constant")
    twice = b.add(length, length)
    return [b.op("Reshape", [whole, _shape(dims, [length, twice], b)], dims_of(node.outputs[0]))]


_TO_THE_END = 1 << 60


def _flattened(square: ir.Value) -> tuple[list[Dim], list[Dim], list[Dim], list[Dim]]:
    """Return of [B, A, S, S] the first two dimensions, and [B, A, 2 S S], [B, A, 2 S S - S] and [B, A, S, 2 S - 1]."""
    batch, heads, *_ = dims_of(square)
    whole = f"2*{SEQUENCE}*{SEQUENCE}"
    first = [batch, heads]
    return first, [*first, whole], [*first, f"{whole}-{SEQUENCE}"], [*first, SEQUENCE, f"2*{SEQUENCE}-1"]


def _shape(first: Sequence[Dim], rest: Sequence[ir.Value | int], b: Builder) -> ir.Value:
    """Return the shape of as many first dimensions as the input has, and these."""
    parts = [b.constant(np.zeros(len(first), np.int64), f"zeros.{len(first)}")]
    parts += [b.constant(np.array([one], np.int64), f"dim.{one}") if isinstance(one, int) else one for one in rest]
    return b.op("Concat", parts, (len(first) + len(rest),), dtype=ir.DataType.INT64, axis=0)


def _masked_dropout(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """Look each byte of bits up in the table of its eight factors, and multiply."""
    x, bits, table = _values(node)
    index = b.cast(bits, ir.DataType.INT32)
    factors = b.op("Gather", [table, index], (*dims_of(bits), 8), axis=0)
    rank = len(dims_of(x))
    target = b.constant(np.array([0] * (rank - 1) + [-1], np.int64), f"join_last.{rank}")
    joined = b.op("Reshape", [factors, target], dims_of(x))
    return [b.mul(x, joined)]


def _first_token(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    (x,) = _values(node)
    width = dims_of(x)[-1]
    tokens = b.reshape_to(x, (BATCH, SEQUENCE, width))
    index = b.constant(np.array(0, np.int64), "first")
    return [b.op("Gather", [tokens, index], (BATCH, width), axis=1)]


def _first_token_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """Pad the [batch, 1, hidden] gradient with zeros to [batch, sequence, hidden]."""
    (dy,) = _values(node)
    width = dims_of(dy)[-1]
    rows = b.reshape_to(dy, (BATCH, 1, width))
    length = b.input_shape(1, 2)
    one = b.constant(np.array([1], np.int64), "one")
    nothing = b.constant(np.zeros(4, np.int64), "no_padding")
    zero = b.constant(np.zeros(1, np.int64), "zero")
    after = b.op("Sub", [length, one], (1,), dtype=ir.DataType.INT64)
    pads = b.op("Concat", [nothing, after, zero], (6,), dtype=ir.DataType.INT64, axis=0)
    padded = b.op("Pad", [rows, pads], (BATCH, SEQUENCE, width), mode="constant")
    return [b.reshape_to(padded, (TOKENS, width))]


def _embedding_grad(node: ir.Node, b: Builder) -> list[ir.Value | None]:
    """accumulator[index] += dy, by ScatterND with addition."""
    dy, index, accumulator = _values(node)
    dims = dims_of(index)
    indices = b.op(
        "Unsqueeze",
        [index, b.constant(np.array([-1], np.int64), "last_axis")],
        (*dims, 1),
        dtype=ir.DataType.INT64,
    )
    return [b.op("ScatterND", [accumulator, indices, dy], dims_of(accumulator), reduction="add")]


_LOWERINGS: dict[str, Lowering] = {
    "LayerNormalizationGrad": _layer_norm_grad,
    "LayerNormalizationGradFromOutput": _layer_norm_grad_from_output,
    "SoftmaxGrad": _softmax_grad,
    "GeluGrad": _gelu_grad,
    "TanhGelu": _tanh_gelu,
    "TanhGeluGrad": _tanh_gelu_grad,
    "Silu": _silu,
    "SiluGrad": _silu_grad,
    "ReluGrad": _relu_grad,
    "Rotary": _rotary,
    "Shifted": _shifted,
    "ShiftedGrad": _shifted_grad,
    "MaskedDropout": _masked_dropout,
    "FirstToken": _first_token,
    "FirstTokenGrad": _first_token_grad,
    "EmbeddingGrad": _embedding_grad,
}
