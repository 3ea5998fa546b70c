"""Evens out what a frozen forward product reads, before it is quantised with one scale a tensor.

1. Behind a LayerNormalization some channels are many times larger than others, by their gamma and beta. The channels
   are divided by 3 |gamma| + |beta| (about the largest magnitude a normalised channel takes), as these were at export,
   and the frozen matrix' rows multiplied by it: exact in real numbers, for any gamma and beta.
2. Behind a GELU it is rows (tokens) that differ: each is divided by its own largest value, and the product's row
   multiplied by it. A GELU is never below -0.17, so a largest value of at least 1.2 keeps what is negative within a
   seventh of it, which is the range that quantize.py leaves below zero.

On real weights this is the difference between a worst learner gradient's cosine of 0.95 and 0.99 (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edge_far.compile.builder import Builder, constant_of
from edge_far.compile.graphs import insert_before, produced_by
from edge_far.compile.notes import PassNote
from edge_far.compile.scale_gradient_rows import multiply_users, row_sizes
from edge_far.compile.sizes import dims_of

__all__ = ["SMALLEST_GELU_ROW", "balance_activations"]

SMALLEST_GELU_ROW = 1.2

# A normalised channel has mean 0 and deviation 1 over the features of a token: 3 deviations cover nearly all of it.
DEVIATIONS = 3.0


def balance_activations(model: ir.Model, parameters: Mapping[str, np.ndarray]) -> PassNote:
    """Apply both rules to every frozen forward product; `parameters` holds all parameters by name."""
    note = PassNote("balance_activations")
    graph = model.graph
    for node in [node for node in graph if _is_forward_product(node)]:
        source = node.inputs[0]
        assert source is not None
        producer = source.producer()
        if producer is not None and producer.op_type == "LayerNormalization":
            _balance_channels(graph, node, producer, parameters)
            note.changed("products balanced by channels")
        else:
            _balance_rows(graph, node)
            note.changed("products balanced by rows")
    return note


def _is_forward_product(node: ir.Node) -> bool:
    frozen = node.op_type == "Gemm" and constant_of(node.inputs[1]) is not None
    return frozen and not node.attributes["transB"].as_int()


def _balance_channels(graph: ir.Graph, node: ir.Node, norm: ir.Node, parameters: Mapping[str, np.ndarray]) -> None:
    gamma, beta = (_value_of(value, parameters) for value in norm.inputs[1:3])
    sizes = np.abs(beta) + DEVIATIONS * np.abs(gamma)
    sizes = np.maximum(sizes, sizes.mean() * 1e-3).astype(np.float32)
    source, weight = node.inputs[:2]
    matrix = constant_of(weight)
    assert source is not None and weight is not None and matrix is not None
    b = Builder(graph, "balance")
    even = b.mul(source, b.constant(1.0 / sizes, f"{weight.name}.channels"))
    balanced = b.constant(matrix * sizes[:, None], f"{weight.name}.balanced")
    insert_before(graph, node, b.nodes)
    node.replace_input_with(0, even)
    node.replace_input_with(1, balanced)


def _balance_rows(graph: ir.Graph, node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None
    b = Builder(graph, "balance")
    sizes = _gelu_row_sizes(source, b) if produced_by(source, "Gelu") else row_sizes(source, b)
    even = b.binary("Div", source, sizes)
    insert_before(graph, node, b.nodes)
    node.replace_input_with(0, even)
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        node.resize_inputs(2)
    multiply_users(graph, node, sizes, bias)


def _gelu_row_sizes(value: ir.Value, b: Builder) -> ir.Value:
    last_axis = b.constant(np.array([-1], np.int64), "last_axis")
    highest = b.op("ReduceMax", [value, last_axis], (dims_of(value)[0], 1), keepdims=1)
    return b.op("Max", [highest, b.scalar(SMALLEST_GELU_ROW)], dims_of(highest))


def _value_of(value: ir.Value | None, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    constant = constant_of(value)
    if constant is not None:
        return constant
    assert value is not None
    return parameters[str(value.name)]
