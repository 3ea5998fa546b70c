"""Keeps the two factors of a non-learner's gated FFN for the backward pass in 8 bits, with one scale a token.

h = act(a) * g; the backward pass wants dh * g and dh * act(a). Rows (tokens) differ by orders of magnitude, so each is
divided by its own largest value: an error of at most 1/254 of that. What a itself is kept as, stash_gelu.py says.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import Builder, constant_of
from edge_far.compile.graph.edits import first_reader, insert_before, produced_by
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of
from edge_far.compile.precision.balance_activations import row_sizes

__all__ = ["stash_gates"]

ZERO, STEPS = 128, 127


def stash_gates(model: ir.Model) -> PassNote:
    """Rewrite what the backward pass reads of the factors of every product of two frozen branches."""
    note = PassNote("stash_gates")
    graph = model.graph
    position = {node: place for place, node in enumerate(graph)}
    for product in [node for node in graph if node.op_type == "Mul"]:
        factors = list(product.inputs)
        if not any(_is_frozen(value) for value in factors) or not all(_is_frozen(_source(value)) for value in factors):
            continue
        for value in factors:
            assert value is not None
            later = [(user, index) for user, index in value.uses() if user is not product]
            if not later:
                continue
            forward, backward = Builder(graph, "gate"), Builder(graph, "gate")
            stash = _in_bytes(value, forward)
            graph.insert_after(product, forward.nodes)
            restored = backward.op("DequantizeLinear", stash, dims_of(value), axis=0)
            insert_before(graph, first_reader(later, position), backward.nodes)
            for user, index in later:
                user.replace_input_with(index, restored)
            note.changed("factors kept in 8 bits")
    return note


def _source(value: ir.Value | None) -> ir.Value | None:
    """Return what an activation function reads, or the value itself where it is a product."""
    producer = value.producer() if value is not None else None
    return producer.inputs[0] if producer is not None and producer.op_type != "Gemm" and producer.inputs else value


def _is_frozen(value: ir.Value | None) -> bool:
    product = produced_by(value, "Gemm")
    return product is not None and constant_of(product.inputs[1]) is not None


def _in_bytes(value: ir.Value, b: Builder) -> list[ir.Value]:
    """Return a matrix in uint8, and steps and zeros of its rows."""
    rows = dims_of(value)[0]
    steps = b.reshape_to(b.mul(row_sizes(value, b), b.scalar(1 / STEPS)), (rows,))
    shape = b.op("Shape", [steps], (1,), dtype=ir.DataType.INT64)
    zero = ir.tensor(np.array([ZERO], np.uint8))
    zeros = b.op("ConstantOfShape", [shape], (rows,), dtype=ir.DataType.UINT8, value=zero)
    quantised = b.op("QuantizeLinear", [value, steps, zeros], dims_of(value), dtype=ir.DataType.UINT8, axis=0)
    return [quantised, steps, zeros]
