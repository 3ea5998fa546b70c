"""Replaces Dropout by masks that the device draws, or removes it.

A mask is an input of packed bits (uint8, one bit an element, little bit order): it depends on (seed, step,
micro-batch, node) alone, costs 1/32 of the activation's memory, and the same bits serve the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edge_far.compile.graph.builder import INTERNAL, Builder, constant_of
from edge_far.compile.graph.edits import insert_before, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import SEQUENCE, Dim, dims_of
from edge_far.errors import Unavailable

__all__ = ["DropoutMask", "bind_dropout_masks", "remove_dropout"]


@dataclass(frozen=True)
class DropoutMask:
    """One mask input: its name, the shape of its bytes, and the probability that an element is dropped.

    `factors` names the input [256, 8] that says what each byte's bits stand for: 0 and 1 / (1 - probability), or
    all ones to train without dropout.
    """

    name: str
    shape: tuple[Dim, ...]
    probability: float
    factors: str


def remove_dropout(model: ir.Model) -> PassNote:
    """Delete every Dropout (for inference, or training without it)."""
    note = PassNote("remove_dropout")
    for node in [node for node in model.graph if node.op_type == "Dropout"]:
        assert node.inputs[0] is not None
        replace_value(node.outputs[0], node.inputs[0])
        note.changed("dropouts removed")
    remove_dead_nodes(model)
    return note


def bind_dropout_masks(model: ir.Model) -> tuple[PassNote, list[DropoutMask]]:
    """Turn Dropout(x) into edge_far.MaskedDropout(x, bits) with one new graph input a node.

    Raises Unavailable where bits do not fill the last dimension.
    """
    note = PassNote("bind_dropout_masks")
    graph = model.graph
    masks: list[DropoutMask] = []
    factors: dict[float, ir.Value] = {}
    for node in [node for node in graph if node.op_type == "Dropout"]:
        source = node.inputs[0]
        ratio = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
        assert source is not None
        probability = 0.5 if ratio is None else float(ratio.reshape(()))
        if probability == 0.0:
            replace_value(node.outputs[0], source)
            continue
        dims = dims_of(source)
        if probability not in factors:
            factors[probability] = _input(graph, f"dropout.factors.{probability:g}", (256, 8), ir.DataType.FLOAT)
        table = factors[probability]
        mask = DropoutMask(f"dropout.{len(masks)}", (*dims[:-1], _eighth(dims[-1])), probability, str(table.name))
        bits = _input(graph, mask.name, mask.shape, ir.DataType.UINT8)
        builder = Builder(graph, "dropout")
        result = builder.op("MaskedDropout", [source, bits, table], dims, domain=INTERNAL)
        insert_before(graph, node, builder.nodes)
        replace_value(node.outputs[0], result)
        masks.append(mask)
        note.changed("dropouts bound to mask inputs")
    remove_dead_nodes(model)
    return note, masks


def _input(graph: ir.Graph, name: str, shape: tuple[Dim, ...], dtype: ir.DataType) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
    graph.inputs.append(value)
    return value


def _eighth(dim: Dim) -> Dim:
    if dim == SEQUENCE:
        return f"{SEQUENCE}/8"
    if isinstance(dim, int) and dim % 8 == 0:
        return dim // 8
    raise Unavailable(
        f"dropout over a last dimension of {dim}, which 8 does not divide", hint="export with --no-dropout"
    )
