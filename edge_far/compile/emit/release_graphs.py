"""The released model's graphs: the oldest opset that has its operators, and its matrices in 32, 16 or 8 bits.

All compute the same model. The numbers are not theirs: the device writes each weights file from the trained parameters,
as the `Tensor`s of its precision say (edge_far/device/release_files.py).

    fp32   every parameter as torch has it
    fp16   matrices and tables in half precision; computed in float32
    int8   matrices in 8 bits with one scale an output channel, multiplied in integers with activations that are
           quantised on the fly, one scale a tensor; tables in 8 bits with one scale a row

Vectors (biases, LayerNorm) and the matrix that makes the logits stay float32. Only standard operators are used, as old
as they can be: Gelu, which opset 20 brought, is spelt out, and ONNX Runtime finds it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.edits import insert_before, only_user, produced_by, remove_dead_nodes, replace_value
from edge_far.compile.graph.sizes import Dim, dims_of
from edge_far.compile.graph.weights import ALIGNMENT

__all__ = ["IR_VERSION", "OPSET", "lower_opset", "smaller_releases"]

# LayerNormalization came with opset 17; IR_VERSION is the file format of its time.
OPSET, IR_VERSION = 17, 8
SMALLEST_MATRIX = 1024
WEIGHTS_FILE = "weights.bin"
TENSOR = "edge_far.tensor"
FLOAT, HALF, BYTE = ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8


@dataclass(frozen=True)
class Tensor:
    """What a tensor of a weights file is made of: a parameter, in one of device/release_files.py's forms."""

    parameter: str
    form: str


# --- the oldest opset --------------------------------------------------------------------------------------------


def lower_opset(release: ir.Model) -> None:
    """Make a release graph one of OPSET, in place."""
    graph = release.graph
    for node in [node for node in graph if node.op_type == "Gelu"]:
        x, form = node.inputs[0], node.attributes.get("approximate")
        assert x is not None
        b = Builder(graph, "gelu")
        gelu = _tanh_gelu if form is not None and form.as_string() == "tanh" else _exact_gelu
        result = gelu(x, b)
        insert_before(graph, node, b.nodes)
        replace_value(node.outputs[0], result)
    for node in [node for node in graph if node.op_type == "Split"]:
        node.attributes.pop("num_outputs", None)  # equal parts; before opset 18 that is said by saying nothing
    remove_dead_nodes(release)
    graph.opset_imports[""] = OPSET
    release.ir_version = IR_VERSION


def _exact_gelu(x: ir.Value, b: Builder) -> ir.Value:
    """0.5 x (1 + erf(x / sqrt(2))), in the order in which ONNX Runtime looks for it."""
    error = b.unary("Erf", b.binary("Div", x, b.scalar(math.sqrt(2.0))))
    return b.mul(b.mul(x, b.add(error, b.scalar(1.0))), b.scalar(0.5))


def _tanh_gelu(x: ir.Value, b: Builder) -> ir.Value:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    cube = b.mul(b.mul(b.mul(x, x), x), b.scalar(0.044715))
    inner = b.mul(b.add(x, cube), b.scalar(math.sqrt(2.0 / math.pi)))
    return b.mul(b.mul(x, b.add(b.unary("Tanh", inner), b.scalar(1.0))), b.scalar(0.5))


# --- fewer bits --------------------------------------------------------------------------------------------------


def smaller_releases(release: ir.Model, parameters: Collection[str], directory: Path) -> dict[str, Any]:
    """Write release-fp16.onnx and release-int8.onnx; return their tensors by precision, for release.json.

    `release` is of OPSET, its initializers named in `parameters` are torch's parameters.
    """
    documents = {}
    for precision, rewrite in _REWRITES.items():
        model = release.clone()
        model.graph.meta.update(release.graph.meta)
        rewrite(model.graph, parameters)
        remove_dead_nodes(model)
        documents[precision] = _place_tensors(model.graph, parameters)
        ir.save(model, directory / f"release-{precision}.onnx")
    return documents


def _in_16_bits(graph: ir.Graph, parameters: Collection[str]) -> None:
    for name in parameters:
        value = graph.initializers.get(name)
        if value is not None and _is_matrix(value, parameters):
            b = Builder(graph, "half")
            restored = b.cast(_stored(graph, value, "float16", HALF, dims_of(value)), FLOAT)
            replace_value(value, restored)
            insert_before(graph, graph[0], b.nodes)


def _in_8_bits(graph: ir.Graph, parameters: Collection[str]) -> None:
    quantised: dict[ir.Value, list[ir.Value]] = {}
    for node in list(graph):
        if node.op_type == "Gather" and _is_matrix(node.inputs[0], parameters):
            _look_up(graph, node)
        elif not _makes_logits(node) and (weight := _matrix_of_product(node, parameters)) is not None:
            _multiply(graph, node, weight, quantised)


def _look_up(graph: ir.Graph, node: ir.Node) -> None:
    """Look rows up in 8 bits, and their scales beside them."""
    table, index = node.inputs[:2]
    assert table is not None and index is not None
    dims = dims_of(node.outputs[0])
    rows = _stored(graph, table, "int8", BYTE, dims_of(table))
    scales = _stored(graph, table, "scales-column", FLOAT, (dims_of(table)[0], 1))
    b = Builder(graph, "int8")
    values = b.op("Gather", [rows, index], dims, dtype=BYTE, axis=0)
    result = b.mul(b.cast(values, FLOAT), b.op("Gather", [scales, index], (*dims[:-1], 1), axis=0))
    insert_before(graph, node, b.nodes)
    replace_value(node.outputs[0], result)


def _multiply(graph: ir.Graph, node: ir.Node, weight: ir.Value, quantised: dict[ir.Value, list[ir.Value]]) -> None:
    """Multiply with a parameter [out, in] in integers; what several products read is quantised once."""
    source = node.inputs[0]
    assert source is not None
    rows, columns = dims_of(weight)
    b = Builder(graph, "int8")
    if source not in quantised:
        outputs = [(dims_of(source), ir.DataType.UINT8), ((), FLOAT), ((), ir.DataType.UINT8)]
        quantised[source] = b.multi("DynamicQuantizeLinear", [source], outputs)
    values, scale, zero = quantised[source]
    right = _stored(graph, weight, "int8-transposed", BYTE, (columns, rows))
    product = b.op("MatMulInteger", [values, right, zero], dims_of(node.outputs[0]), dtype=ir.DataType.INT32)
    scales = b.mul(scale, _stored(graph, weight, "scales", FLOAT, (rows,)))
    result = b.mul(b.cast(product, FLOAT), scales)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = b.add(result, node.inputs[2])
    insert_before(graph, node, b.nodes)
    replace_value(node.outputs[0], result)


_REWRITES: Mapping[str, Callable[[ir.Graph, Collection[str]], None]] = {"fp16": _in_16_bits, "int8": _in_8_bits}


def _is_matrix(value: ir.Value | None, parameters: Collection[str]) -> bool:
    """Say whether a value is a parameter worth fewer bits."""
    if value is None or value.name not in parameters:
        return False
    dims = dims_of(value)
    return len(dims) == 2 and math.prod(int(dim) for dim in dims) >= SMALLEST_MATRIX


def _matrix_of_product(node: ir.Node, parameters: Collection[str]) -> ir.Value | None:
    """Return the parameter [out, in] that a MatMul or Gemm multiplies rows with, transposed."""
    if node.op_type == "MatMul":
        turned = produced_by(node.inputs[1], "Transpose")
        value = turned.inputs[0] if turned is not None else None
    elif node.op_type == "Gemm" and node.attributes["transB"].as_int():
        value = node.inputs[1]
    else:
        return None
    return value if _is_matrix(value, parameters) else None


def _makes_logits(node: ir.Node) -> bool:
    """Say whether a product is the model's output, but for its bias."""
    value = node.outputs[0]
    user = only_user(value)
    if user is not None and user.op_type == "Add":
        value = user.outputs[0]
    return value.is_graph_output()


def _stored(graph: ir.Graph, value: ir.Value, form: str, dtype: ir.DataType, shape: Sequence[Dim]) -> ir.Value:
    """Return the initializer that holds a parameter in a form; its numbers come on the device."""
    name = f"{value.name}.{form}"
    if name not in graph.initializers:
        stored = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        stored.const_value = ir.tensor(np.zeros([int(dim) for dim in shape], dtype.numpy()), name=name)
        stored.meta[TENSOR] = Tensor(str(value.name), form)
        graph.initializers[name] = stored
    return graph.initializers[name]


def _place_tensors(graph: ir.Graph, parameters: Collection[str]) -> list[dict[str, Any]]:
    """Give every stored tensor its place in the weights file; return them in the order in which they lie there."""
    placed = []
    end = 0
    for name, value in graph.initializers.items():
        tensor = value.meta.get(TENSOR)
        if tensor is None and name not in parameters:
            continue
        tensor = tensor or Tensor(name, "float32")
        assert value.const_value is not None and value.dtype is not None and value.shape is not None
        length = value.const_value.nbytes
        value.const_value = ir.ExternalTensor(
            WEIGHTS_FILE, end, length, value.dtype, shape=value.shape, name=name, base_dir=""
        )
        placed.append({"parameter": tensor.parameter, "form": tensor.form, "offset": end, "length": length})
        end += length + -length % ALIGNMENT
    return placed
