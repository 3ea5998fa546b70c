"""Stores the non-learners' matrices in 8 bits and multiplies with them in integer arithmetic, both directions.

A Gemm whose right operand is a frozen matrix becomes com.microsoft DynamicQuantizeMatMul: the matrix is int8 with one
scale an output channel, symmetric, in [-127, 127] (the value -128 overflows integer kernels on cores without
dot-product instructions); the activation is quantised on the fly to uint8 with one scale a tensor. The backward product
dx = dy @ w.T has other output channels than the forward one, so it gets a matrix and scales of its own.

Frozen embedding tables are int8 with one scale a row: only the rows that are looked up become float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edge_far.compile.builder import MICROSOFT, Builder, constant_of
from edge_far.compile.graphs import insert_before, remove_dead_nodes, replace_value
from edge_far.compile.notes import PassNote
from edge_far.compile.sizes import dims_of

__all__ = ["quantize_columns", "quantize_frozen_products", "quantize_frozen_tables"]

LARGEST = 127
# Below this many elements the saving is not worth a quantisation of the activation.
SMALLEST_MATRIX = 1024


def quantize_columns(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a matrix [in, out] to int8 with one scale a column; return (values, scales float32 [out])."""
    peak = np.abs(matrix).max(axis=0)
    scales = np.where(peak > 0, peak / LARGEST, 1.0).astype(np.float32)
    values = np.clip(np.rint(matrix / scales), -LARGEST, LARGEST).astype(np.int8)
    return values, scales


def quantize_frozen_products(model: ir.Model) -> PassNote:
    """Replace Gemm by DynamicQuantizeMatMul wherever the right operand is a frozen matrix."""
    note = PassNote("quantize_frozen_products")
    graph = model.graph
    for node in [node for node in graph if node.op_type == "Gemm"]:
        weight = node.inputs[1]
        matrix = constant_of(weight)
        if weight is None or matrix is None:
            continue
        if matrix.size < SMALLEST_MATRIX:
            note.refuse(f"{weight.name}: only {matrix.size} elements")
            continue
        transposed = bool(node.attributes["transB"].as_int())
        values, scales = quantize_columns(matrix.T if transposed else matrix)
        builder = Builder(graph, "int8")
        name = f"{weight.name}.{'backward' if transposed else 'forward'}"
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        inputs = [
            node.inputs[0],
            builder.constant(values, f"{name}.int8"),
            builder.constant(scales, f"{name}.scales"),
        ]
        if bias is not None:
            inputs += [None, bias]
        result = builder.op("DynamicQuantizeMatMul", inputs, dims_of(node.outputs[0]), domain=MICROSOFT)
        insert_before(graph, node, builder.nodes)
        replace_value(node.outputs[0], result)
        note.changed("products in int8")
    remove_dead_nodes(model)
    return note


def quantize_frozen_tables(model: ir.Model) -> PassNote:
    """Replace Gather(table, index) by the product of gathered int8 rows and their scales."""
    note = PassNote("quantize_frozen_tables")
    graph = model.graph
    for node in [node for node in graph if node.op_type == "Gather"]:
        source, index = node.inputs[:2]
        table = constant_of(source)
        if source is None or index is None or table is None or table.ndim != 2 or table.size < SMALLEST_MATRIX:
            continue
        values, scales = quantize_columns(table.T)
        b = Builder(graph, "int8")
        dims = dims_of(node.outputs[0])
        stored = b.constant(np.ascontiguousarray(values.T), f"{source.name}.int8")
        factors = b.constant(scales[:, None], f"{source.name}.scales")
        rows = b.op("Gather", [stored, index], dims, dtype=ir.DataType.INT8, axis=0)
        row_scales = b.op("Gather", [factors, index], (*dims[:-1], 1), axis=0)
        result = b.mul(b.cast(rows, ir.DataType.FLOAT), row_scales)
        insert_before(graph, node, b.nodes)
        replace_value(node.outputs[0], result)
        note.changed("tables in int8")
    remove_dead_nodes(model)
    return note
