"""The losses of tasks by their names: each puts itself behind the logits of a forward graph, with its own gradient.

far/above_cut.py has the same ones in torch, by which tests judge these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.sizes import dims_of

__all__ = ["LOSSES", "add_loss"]

NEVER = 1e9  # taken from the logits of tokens that cannot be said
# Of logits and targets: the sum of the examples' losses, and its gradient by the logits.
Loss = Callable[[Builder, ir.Value, ir.Value], tuple[ir.Value, ir.Value]]


def add_loss(model: ir.Model, name: str) -> ir.Value:
    """Add a loss; return the gradient of the logits.

    New inputs: `labels`, as the loss reads them, and `loss_scale` float32 scalar (1 / examples of the whole batch, so
    that micro-batches of any size add up to the mean). The output `logits` is replaced by `loss`, the scaled sum.
    """
    graph = model.graph
    (logits,) = graph.outputs
    loss_of, kind = LOSSES[name]
    shape = ir.Shape(logits.shape[:-1]) if kind == ir.DataType.INT64 else logits.shape
    labels = ir.Value(name="labels", shape=shape, type=ir.TensorType(kind))
    scale = ir.Value(name="loss_scale", shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT))
    graph.inputs.extend([labels, scale])
    b = Builder(graph, "loss")
    total, error = loss_of(b, logits, labels)
    loss = b.mul(total, scale)
    gradient = b.mul(error, scale)
    graph.extend(b.nodes)
    loss.name = "loss"
    graph.outputs[:] = [loss]
    return gradient


def _softmax(b: Builder, logits: ir.Value, labels: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Cross-entropy of class numbers, int64 [batch]."""
    log_probabilities = b.unary("LogSoftmax", logits, axis=-1)
    depth = b.constant(np.array(int(logits.shape[1]), np.int64), "classes")
    off_on = b.constant(np.array([0.0, 1.0], np.float32), "off_on")
    target = b.op("OneHot", [labels, depth, off_on], logits.shape, axis=-1)
    total = b.op("ReduceSum", [b.mul(target, log_probabilities)], (), keepdims=0)
    return b.unary("Neg", total), b.sub(b.unary("Exp", log_probabilities), target)


def _square(b: Builder, logits: ir.Value, labels: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The squared error, mean over the outputs; labels float32 [batch, outputs]."""
    error = b.sub(logits, labels)
    share = b.scalar(1.0 / int(logits.shape[1]))
    total = b.op("ReduceSum", [b.mul(error, error)], (), keepdims=0)
    return b.mul(total, share), b.mul(error, b.mul(share, b.scalar(2.0)))


def _sigmoid(b: Builder, logits: ir.Value, labels: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Binary cross-entropy of each output, mean over the outputs; labels float32 [batch, outputs], 0 or 1.

    softplus(x) - label * x, which overflows for no x.
    """
    share = b.scalar(1.0 / int(logits.shape[1]))
    losses = b.sub(b.unary("Softplus", logits), b.mul(labels, logits))
    total = b.op("ReduceSum", [losses], (), keepdims=0)
    return b.mul(total, share), b.mul(b.sub(b.unary("Sigmoid", logits), labels), share)


def _token_softmax(b: Builder, logits: ir.Value, labels: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Cross-entropy of the tokens that have a class, mean over those of an example; labels int64 [batch, sequence].

    A negative label equals no class: its row of the target is zero, and so are its loss and its gradient.
    """
    batch, sequence, count = dims_of(logits)
    classes = b.constant(np.arange(int(count)), "classes")
    column = b.reshape_to(labels, (batch, sequence, 1))
    same = b.op("Equal", [column, classes], dims_of(logits), dtype=ir.DataType.BOOL)
    target = b.cast(same, ir.DataType.FLOAT)
    known = b.reduce("ReduceSum", target, 2, keepdims=True)
    tokens = b.reduce("ReduceSum", known, 1, keepdims=True)
    share = b.binary("Div", known, b.binary("Max", tokens, b.scalar(1.0)))
    log_probabilities = b.unary("LogSoftmax", logits, axis=-1)
    weighted = b.mul(target, share)
    total = b.op("ReduceSum", [b.mul(weighted, log_probabilities)], (), keepdims=0)
    return b.unary("Neg", total), b.sub(b.mul(b.unary("Exp", log_probabilities), share), weighted)


def _span(b: Builder, logits: ir.Value, labels: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Cross-entropy of first and last token, mean of the two; labels float32 [batch, sequence, 2], below 0 never."""
    never, target = (b.binary(operator, labels, b.scalar(0.0)) for operator in ("Min", "Max"))
    masked = b.add(logits, b.mul(never, b.scalar(NEVER)))
    known = b.reduce("ReduceSum", target, 1, keepdims=True)
    log_probabilities = b.unary("LogSoftmax", masked, axis=1)
    half = b.scalar(0.5)
    total = b.op("ReduceSum", [b.mul(target, log_probabilities)], (), keepdims=0)
    said = b.mul(b.unary("Exp", log_probabilities), known)
    return b.mul(b.unary("Neg", total), half), b.mul(b.sub(said, target), half)


# The loss, and the type of its labels: class numbers [batch] or [batch, sequence], or float32 [batch, outputs].
LOSSES: dict[str, tuple[Loss, ir.DataType]] = {
    "softmax": (_softmax, ir.DataType.INT64),
    "sigmoid": (_sigmoid, ir.DataType.FLOAT),
    "square": (_square, ir.DataType.FLOAT),
    "token_softmax": (_token_softmax, ir.DataType.INT64),
    "span": (_span, ir.DataType.FLOAT),
}
