"""Stores the non-learners' matrices in 8 bits and multiplies with them in integer arithmetic, both directions.

1. The right operand, a frozen matrix, is int8 with one scale an output channel, symmetric, in [-127, 127] (the value
   -128 overflows integer kernels on cores without dot-product instructions). The backward product dx = dy @ w.T has
   other output channels than the forward one, so it gets a matrix and scales of its own.
2. The left operand is quantised to uint8 on the fly. Where balance_activations or scale_gradient_rows divides its rows
   by their sizes, that division and the quantisation become one QuantizeLinear with a scale a row, followed by
   com.microsoft MatMulIntegerToFloat; a gradient that a stash multiplies before its product stays in bytes between the
   two (stashed_gradients.py); elsewhere DynamicQuantizeMatMul finds one scale for the whole, or, where several products
   read the same (queries, keys and values), one DynamicQuantizeLinear for all of them. In a prefix, whose rows are all
   divided by their sizes, they share one QuantizeLinear. Columns that balance_activations repeats are repeated as
   bytes.

`store_frozen_weights` is for cores without integer dot products: 8 bits with one scale for MATRIX_BLOCK numbers, stored
once for both directions, become fp32 for each product (DequantizeLinear), and activations are not rounded.

Frozen embedding tables are int8 with one scale for TABLE_BLOCK numbers of a row; only rows that are looked up become
float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.activations import one_sided
from edge_far.compile.graph.builder import MICROSOFT, Builder, constant_of
from edge_far.compile.graph.edits import insert_before, produced_by, remove_dead_nodes, replace_value
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of
from edge_far.compile.precision.balance_activations import repeat_columns
from edge_far.compile.precision.stashed_gradients import integer_product, stashed_gradient

__all__ = ["quantize_columns", "quantize_frozen_products", "quantize_frozen_tables", "store_frozen_weights"]

LARGEST_INT8 = 127
# Below this many elements the saving is not worth a quantisation of the activation.
SMALLEST_MATRIX = 1024
# Nor where it has fewer rows or columns than this: the few nodes that balance_activations leaves to fp32 are such.
SHORTEST_SIDE = 8
# Numbers that share a scale where only the storage is rounded, in a matrix and in a row of a table. Chosen by the worst
# gradient (benchmarks/gradient_cosine.py): blocks of 32 in matrices cost int8-weights a cosine of 0.0015.
MATRIX_BLOCK, TABLE_BLOCK = 16, 32
BLOCKED_OPSET = 21  # DequantizeLinear knows blocks since then
# The uint8 that stands for zero in rows that were divided by their size: of a GELU or SiLU, which are never far below
# zero, and of anything else.
ONE_SIDED_ZERO, SYMMETRIC_ZERO = 32, 128


def quantize_columns(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a matrix [in, out] to int8 with one scale a column; return (values, scales float32 [out])."""
    peak = np.abs(matrix).max(axis=0)
    scales = np.where(peak > 0, peak / LARGEST_INT8, 1.0).astype(np.float32)
    values = np.clip(np.rint(matrix / scales), -LARGEST_INT8, LARGEST_INT8).astype(np.int8)
    return values, scales


def quantize_blocks(matrix: np.ndarray, axis: int, size: int = MATRIX_BLOCK) -> tuple[np.ndarray, np.ndarray]:
    """Quantise a matrix to int8 with one scale for each `size` numbers along an axis that they fill.

    Returns values and scales (float32, the axis divided by `size`).
    """
    shape = [*matrix.shape[:axis], -1, size, *matrix.shape[axis + 1 :]]
    blocks = matrix.reshape(shape)
    peak = np.abs(blocks).max(axis=axis + 1, keepdims=True)
    scales = np.where(peak > 0, peak / LARGEST_INT8, 1.0).astype(np.float32)
    values = np.clip(np.rint(blocks / scales), -LARGEST_INT8, LARGEST_INT8).astype(np.int8)
    return values.reshape(matrix.shape), np.squeeze(scales, axis + 1)


def quantize_frozen_products(model: ir.Model) -> PassNote:
    """Replace Gemm by an 8-bit product wherever the right operand is a frozen matrix."""
    note = PassNote("quantize_frozen_products")
    graph = model.graph
    shared: dict[ir.Value, list[ir.Value]] = {}
    for node, weight, matrix in _frozen_products(graph, note):
        transposed = bool(node.attributes["transB"].as_int())
        matrix = matrix.T if transposed else matrix
        scaled, stashed = _divided_by_rows(node.inputs[0]), stashed_gradient(node.inputs[0])
        b = Builder(graph, "int8")
        if stashed is not None:
            matrix = matrix * stashed.divide_columns(b)[:, None]
        values, scales = quantize_columns(matrix)
        name = f"{weight.name}.{'backward' if transposed else 'forward'}"
        right = (b.constant(values, f"{name}.int8"), b.constant(scales, f"{name}.scales"))
        if stashed is not None:
            result, replaced = stashed.product(right, node.outputs[0], b)
            note.changed("products of bytes with stashes")
        elif scaled is None:
            result, replaced = _dynamic_product(node, right, shared, b), node.outputs[0]
            note.changed("products in int8, one scale a tensor")
        else:
            result, replaced = _product_of_rows(node, scaled, right, shared, b)
            note.changed("products in int8, one scale a row")
        insert_before(graph, node, b.nodes)
        replace_value(replaced, result)
    remove_dead_nodes(model)
    return note


def store_frozen_weights(model: ir.Model) -> PassNote:
    """Make every Gemm with a frozen matrix read it from 8 bits, dequantised for that product alone."""
    note = PassNote("store_frozen_weights")
    for node, weight, matrix in _frozen_products(model.graph, note):
        axis = next((axis for axis in (0, 1) if matrix.shape[axis] % MATRIX_BLOCK == 0), None)
        if axis is None:
            note.refuse(f"{weight.name}: blocks of {MATRIX_BLOCK} do not fill {matrix.shape[0]} x {matrix.shape[1]}")
            continue
        values, scales = quantize_blocks(matrix, axis)
        b = Builder(model.graph, "int8")
        stored = [b.constant(values, f"{weight.name}.int8"), b.constant(scales, f"{weight.name}.scales")]
        restored = b.op("DequantizeLinear", stored, dims_of(weight), axis=axis, block_size=MATRIX_BLOCK)
        insert_before(model.graph, node, b.nodes)
        node.replace_input_with(1, restored)
        note.changed("matrices stored in 8 bits")
    if note.changes:
        model.graph.opset_imports[""] = max(BLOCKED_OPSET, model.graph.opset_imports[""])
    remove_dead_nodes(model)
    return note


def _frozen_products(graph: ir.Graph, note: PassNote) -> Iterator[tuple[ir.Node, ir.Value, np.ndarray]]:
    """Yield every Gemm whose right operand is a frozen matrix worth the pass, with that operand and its numbers."""
    for node in [node for node in graph if node.op_type == "Gemm"]:
        weight = node.inputs[1]
        matrix = constant_of(weight)
        if weight is None or matrix is None:
            continue
        if matrix.size < SMALLEST_MATRIX:
            note.refuse(f"{weight.name}: only {matrix.size} elements")
            continue
        if min(matrix.shape) < SHORTEST_SIDE:
            note.refuse(f"{weight.name}: {matrix.shape[0]} x {matrix.shape[1]} is too narrow")
            continue
        yield node, weight, matrix


def _dynamic_product(
    node: ir.Node, right: tuple[ir.Value, ir.Value], shared: dict[ir.Value, list[ir.Value]], b: Builder
) -> ir.Value:
    """Multiply with one scale for the whole left operand; `shared` keeps those that more products are going to read."""
    source, dims = node.inputs[0], dims_of(node.outputs[0])
    assert source is not None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    optional = [None, bias] if bias is not None else []
    copied = _copied_columns(source)
    if source not in shared and copied is None and len(_frozen_readers(source)) == 1:
        return b.op("DynamicQuantizeMatMul", [source, *right, *optional], dims, domain=MICROSOFT)
    if source not in shared:
        once = source if copied is None else copied.inputs[0]
        assert once is not None
        outputs = [(dims_of(once), ir.DataType.UINT8), ((), ir.DataType.FLOAT), ((), ir.DataType.UINT8)]
        values, scale, zero = b.multi("DynamicQuantizeLinear", [once], outputs)
        shared[source] = [_with_copies(values, source, b), scale, zero]
    values, scale, zero = shared[source]
    inputs = [values, right[0], scale, right[1], zero, *optional]
    return b.op("MatMulIntegerToFloat", inputs, dims, domain=MICROSOFT)


def _copied_columns(value: ir.Value) -> ir.Node | None:
    """Return the Gather of a value that is another one beside some of that one's own columns: its bytes are theirs."""
    both = produced_by(value, "Concat")
    copied = produced_by(both.inputs[1], "Gather") if both is not None and len(both.inputs) == 2 else None
    if both is None or copied is None or copied.inputs[0] is not both.inputs[0]:
        return None
    axis = copied.attributes.get("axis")
    return copied if axis is not None and axis.as_int() == 1 else None


def _frozen_readers(value: ir.Value) -> list[ir.Node]:
    """Return the products with frozen matrices that read a value as their left operand."""
    gemms = [user for user, index in value.uses() if index == 0 and user.op_type == "Gemm"]
    return [gemm for gemm in gemms if constant_of(gemm.inputs[1]) is not None]


def _divided_by_rows(value: ir.Value | None) -> ir.Node | None:
    """Return the Div(x, sizes [rows, 1]) that makes the value, or all but its copied columns."""
    copied = None if value is None else _copied_columns(value)
    node = produced_by(value if copied is None else copied.inputs[0], "Div")
    sizes = None if node is None else node.inputs[1]
    if node is None or sizes is None:
        return None
    return node if dims_of(sizes) == (dims_of(node.outputs[0])[0], 1) else None


def _product_of_rows(
    node: ir.Node,
    scaled: ir.Node,
    right: tuple[ir.Value, ir.Value],
    shared: dict[ir.Value, list[ir.Value]],
    b: Builder,
) -> tuple[ir.Value, ir.Value]:
    """Quantise x / sizes with one scale a row, and multiply in integers; the Div is no longer needed.

    `shared` keeps the bytes of what more products are going to read.
    """
    (x, sizes), source = scaled.inputs, node.inputs[0]
    assert x is not None and sizes is not None and source is not None
    zero = SYMMETRIC_ZERO if one_sided(x) is None else ONE_SIDED_ZERO
    step = 1.0 / (255 - zero)
    if source not in shared:
        rows = dims_of(sizes)[0]
        steps = b.reshape_to(b.mul(sizes, b.scalar(step)), (rows,))
        shape = b.op("Shape", [steps], (1,), dtype=ir.DataType.INT64)
        byte = ir.DataType.UINT8
        value = ir.tensor(np.array([zero], np.uint8))
        zeros = b.op("ConstantOfShape", [shape], (rows,), dtype=byte, value=value)
        quantised = b.op("QuantizeLinear", [x, steps, zeros], dims_of(x), dtype=byte, axis=0)
        shared[source] = [_with_copies(quantised, source, b)]
    left = (shared[source][0], step, b.constant(np.array(zero, np.uint8), f"zero.{zero}"))
    return integer_product(left, right, node.inputs[2] if len(node.inputs) > 2 else None, node.outputs[0], b)


def _with_copies(values: ir.Value, source: ir.Value, b: Builder) -> ir.Value:
    """Return the bytes `values` with the columns repeated that `source` repeats of what they are made of."""
    copied = _copied_columns(source)
    which = None if copied is None else copied.inputs[1]
    return values if which is None else repeat_columns(values, which, b, ir.DataType.UINT8)


def quantize_frozen_tables(model: ir.Model) -> PassNote:
    """Replace Gather(table, index) by the product of gathered int8 rows and their blocks' scales."""
    note = PassNote("quantize_frozen_tables")
    graph = model.graph
    for node in [node for node in graph if node.op_type == "Gather"]:
        source, index = node.inputs[:2]
        table = constant_of(source)
        if source is None or index is None or table is None or table.ndim != 2 or table.size < SMALLEST_MATRIX:
            continue
        width = table.shape[1]
        if width % TABLE_BLOCK:
            note.refuse(f"{source.name}: blocks of {TABLE_BLOCK} do not fill rows of {width}")
            continue
        values, scales = quantize_blocks(table, 1, TABLE_BLOCK)
        b = Builder(graph, "int8")
        dims = dims_of(node.outputs[0])
        blocks = width // TABLE_BLOCK
        stored = b.constant(values, f"{source.name}.int8")
        factors = b.constant(scales[:, :, None], f"{source.name}.scales")
        rows = b.op("Gather", [stored, index], dims, dtype=ir.DataType.INT8, axis=0)
        factors_of_rows = b.op("Gather", [factors, index], (*dims[:-1], blocks, 1), axis=0)
        parts = b.reshape_keeping(b.cast(rows, ir.DataType.FLOAT), dims[:-1], (blocks, TABLE_BLOCK))
        result = b.reshape_keeping(b.mul(parts, factors_of_rows), dims[:-1], (width,))
        insert_before(graph, node, b.nodes)
        replace_value(node.outputs[0], result)
        note.changed("tables in int8")
    remove_dead_nodes(model)
    return note
