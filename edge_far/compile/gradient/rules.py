"""One gradient rule an operator of the canonical forward graph.

A rule gets the forward node, the gradient of its first output, which inputs want a gradient, and a builder. It yields
(input index, gradient) pairs, parameters first: an activation kept for a weight gradient then dies before the next
gradient is made. Shapes are those of the inputs; formulas are for y = op(x, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import INTERNAL, MICROSOFT, SWAP_HEADS, Builder, constant_of
from edge_far.compile.graph.sizes import TOKENS, Dim, dims_of
from edge_far.errors import Unavailable

__all__ = ["RULES"]

Gradients = Iterator[tuple[int, ir.Value]]
Rule = Callable[[ir.Node, ir.Value, Sequence[bool], Builder], Gradients]
RULES: dict[tuple[str, str], Rule] = {}


def _rule(op_type: str, domain: str = "") -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES[domain, op_type] = function
        return function

    return register


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())


def _inputs(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


@_rule("Gemm")
def _gemm(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """y = x op(w) + c."""
    x, weight = _inputs(node)[:2]
    trans = _flag(node, "transB")
    if want[1]:
        yield 1, (b.gemm(dy, x, trans_left=True) if trans else b.gemm(x, dy, trans_left=True))
    if len(want) > 2 and want[2]:
        yield 2, b.reduce("ReduceSum", dy, 0, keepdims=False)
    if want[0]:
        yield 0, b.gemm(dy, weight, trans_right=not trans)


@_rule("FusedMatMul", MICROSOFT)
def _matmul(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """y = alpha * a op(c), batched; `a` is never transposed in our graphs."""
    left, right = _inputs(node)
    alpha = node.attributes["alpha"].as_float()
    trans = _flag(node, "transB")
    if want[1]:
        first, second = (dy, left) if trans else (left, dy)
        yield 1, _sum_to(b.matmul(first, second, trans_left=True, alpha=alpha), right, b)
    if want[0]:
        yield 0, b.matmul(dy, right, trans_right=not trans, alpha=alpha)


@_rule("Add")
def _add(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    for index, value in enumerate(_inputs(node)):
        if want[index]:
            yield index, _sum_to(dy, value, b)


@_rule("Mul")
def _mul(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = dy * y and dy = dy * x."""
    factors = _inputs(node)
    for index, value in enumerate(factors):
        if want[index]:
            yield index, _sum_to(b.mul(dy, factors[1 - index]), value, b)


@_rule("Div")
def _div(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = dy / d, where nothing that is trained is in the divisor d."""
    value, divisor = _inputs(node)
    if want[1]:
        raise Unavailable("only a dividend has a gradient rule", where=f"node {node.name}")
    yield 0, _sum_to(b.binary("Div", dy, divisor), value, b)


@_rule("Rotary", INTERNAL)
def _rotary(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """Turned back: by the same angles, the other way round."""
    _, cosines, sines = _inputs(node)
    back = constant_of(sines)
    assert back is not None
    yield 0, b.op("Rotary", [dy, cosines, b.constant(-back, f"{sines.name}.back")], dims_of(dy), domain=INTERNAL)


def _sum_to(gradient: ir.Value, like: ir.Value, b: Builder) -> ir.Value:
    """Sum a gradient over the axes along which `like` was broadcast."""
    dims, target = dims_of(gradient), dims_of(like)
    for _ in range(len(dims) - len(target)):
        gradient = b.reduce("ReduceSum", gradient, 0, keepdims=False)
    for axis, (dim, wanted) in enumerate(zip(dims[len(dims) - len(target) :], target, strict=True)):
        if wanted == 1 and dim != 1:
            gradient = b.reduce("ReduceSum", gradient, axis, keepdims=True)
    return gradient


@_rule("LayerNormalization")
def _layer_norm(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """Parameters and input share the product of dy and the normalised input, so they are one operator."""
    x, gamma = _inputs(node)[:2]
    _, mean, inverse_deviation = node.outputs
    dims, width = dims_of(x), dims_of(gamma)
    dx, dgamma, dbeta = b.multi(
        "LayerNormalizationGrad",
        [dy, x, gamma, mean, inverse_deviation],
        [(dims, ir.DataType.FLOAT), (width, ir.DataType.FLOAT), (width, ir.DataType.FLOAT)],
        domain=INTERNAL,
    )
    for index, value in ((1, dgamma), (2, dbeta), (0, dx)):
        if want[index]:
            yield index, value


@_rule("Softmax")
def _softmax(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = y * (dy - sum(dy * y)) along the last axis."""
    output = node.outputs[0]
    yield 0, b.op("SoftmaxGrad", [dy, output], dims_of(output), domain=INTERNAL)


@_rule("Attention")
def _attention(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """y = p v with p = softmax(scale q k' + mask), a head at a time.

    With dp = dy v', the softmax' gradient is p * (dp - sum(dp * p)); that sum is sum(dy * y) over a head's width, which
    is smaller than p (Dao et al., arXiv 2205.14135, appendix B).
    """
    query, key, value = _inputs(node)[:3]
    result, weights = node.outputs[0], node.outputs[3]
    heads, scale = node.attributes["q_num_heads"].as_int(), node.attributes["scale"].as_float()
    gradient = b.by_heads(dy, heads)
    if want[2]:
        yield 2, _joined_heads(b.matmul(weights, gradient, trans_left=True), value, b)
    if want[0] or want[1]:
        total = b.reduce("ReduceSum", b.split_heads(b.mul(dy, result), heads), -1, keepdims=True)
        error = b.sub(b.matmul(gradient, b.by_heads(value, heads), trans_right=True), b.transpose(total, SWAP_HEADS))
        scores = b.mul(error, weights)
        if want[1]:
            yield 1, _joined_heads(b.matmul(scores, b.by_heads(query, heads), trans_left=True, alpha=scale), key, b)
        if want[0]:
            yield 0, _joined_heads(b.matmul(scores, b.by_heads(key, heads), alpha=scale), query, b)


def _joined_heads(value: ir.Value, like: ir.Value, b: Builder) -> ir.Value:
    """[B, A, S, d] -> [B, S, A*d], the shape of `like`."""
    batch, length, hidden = dims_of(like)
    assert isinstance(hidden, int)
    return b.reshape_keeping(b.transpose(value, SWAP_HEADS), (batch, length), (hidden,))


@_rule("Gelu")
def _gelu(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = dy * (cdf(x) + x * pdf(x)) of the standard normal distribution."""
    (x,) = _inputs(node)
    if "approximate" in node.attributes and node.attributes["approximate"].as_string() != "none":
        raise Unavailable("only the exact GELU has a gradient rule", where=f"node {node.name}")
    yield 0, b.op("GeluGrad", [dy, x], dims_of(x), domain=INTERNAL)


@_rule("TanhGelu", INTERNAL)
def _tanh_gelu(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """The derivative of the GELU by a hyperbolic tangent; see lower.py."""
    (x,) = _inputs(node)
    yield 0, b.op("TanhGeluGrad", [dy, x], dims_of(x), domain=INTERNAL)


@_rule("Silu", INTERNAL)
def _silu(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = dy * (s + x s (1 - s)) with s = sigmoid(x)."""
    (x,) = _inputs(node)
    yield 0, b.op("SiluGrad", [dy, x], dims_of(x), domain=INTERNAL)


@_rule("Tanh")
def _tanh(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = dy * (1 - y * y)."""
    y = node.outputs[0]
    yield 0, b.mul(dy, b.sub(b.scalar(1.0), b.mul(y, y)))


@_rule("Relu")
def _relu(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = dy where y > 0, else 0."""
    y = node.outputs[0]
    yield 0, b.op("ReluGrad", [dy, y], dims_of(y), domain=INTERNAL)


@_rule("MaskedDropout", INTERNAL)
def _masked_dropout(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """dx = dropout of dy by the same mask."""
    _, bits, factors = _inputs(node)
    yield 0, b.op("MaskedDropout", [dy, bits, factors], dims_of(dy), domain=INTERNAL)


@_rule("Reshape")
def _reshape(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    yield 0, b.reshape_to(dy, dims_of(_inputs(node)[0]))


@_rule("Transpose")
def _transpose(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    perm = node.attributes["perm"].as_ints()
    yield 0, b.transpose(dy, [int(axis) for axis in np.argsort(perm)])


@_rule("FirstToken", INTERNAL)
def _first_token(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """The rows of the first tokens get dy, all others zero."""
    yield 0, b.op("FirstTokenGrad", [dy], (TOKENS, dims_of(dy)[-1]), domain=INTERNAL)


def _put_back(dy: ir.Value, dims: Sequence[Dim], axis: int, index: ir.Value, b: Builder) -> ir.Value:
    taken, size = constant_of(index), dims[axis]
    if taken is None or not isinstance(size, int) or taken.ndim != 1 or len(set(taken.tolist())) < len(taken):
        raise Unavailable("only a constant selection has a gradient rule", where=f"value {index.name}")
    pads = np.zeros(2 * len(dims), np.int64)
    pads[len(dims) + axis] = 1
    zeros_last = [*dims[:axis], len(taken) + 1, *dims[axis + 1 :]]
    padded = b.op("Pad", [dy, b.constant(pads, f"pads.{axis}.{len(dims)}")], zeros_last, mode="constant")
    places = np.full(size, len(taken), np.int64)
    places[taken] = np.arange(len(taken))
    return b.op("Gather", [padded, b.constant(places, "places_of_taken")], dims, axis=axis)


@_rule("Gather")
def _gather(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """An embedding look-up: row i of the table gets the sum of dy over the places where the index is i.

    Along another axis, where a constant index takes each at most once: dy put back, and zeros where nothing was taken.
    """
    table, index = _inputs(node)
    if axis := node.attributes["axis"].as_int() if "axis" in node.attributes else 0:
        yield 0, _put_back(dy, dims_of(table), axis, index, b)
        return
    # A table that is computed, and so no learner with an accumulator, begins with zeros.
    zeros = [] if table.producer() is None else [_zeros(dims_of(table), b)]
    yield 0, b.op("EmbeddingGrad", [dy, index, *zeros], dims_of(table), domain=INTERNAL)


def _zeros(dims: Sequence[Dim], b: Builder) -> ir.Value:
    shape = b.constant(np.array(dims, np.int64), "shape." + "x".join(map(str, dims)))
    return b.op("ConstantOfShape", [shape], dims)


@_rule("Shifted", INTERNAL)
def _shifted(node: ir.Node, dy: ir.Value, want: Sequence[bool], b: Builder) -> Gradients:
    """Each number goes back to its place; all others get zero."""
    (x,) = _inputs(node)
    yield 0, b.op("ShiftedGrad", [dy], dims_of(x), domain=INTERNAL)
