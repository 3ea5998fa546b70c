"""Tiny ONNX graphs for tests of the compiler's passes: build one, run it, list its operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from edge_far.compile.forward.fuse_attention import ATTENTION_OPSET
from edge_far.compile.gradient.lower import lower_internal_operators
from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.sizes import Dim
from tests.stock_runtime import run_on_stock_runtime

FLOAT, INT64, UINT8 = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.UINT8


def make_graph(
    inputs: Mapping[str, Sequence[Dim] | tuple[Sequence[Dim], ir.DataType]],
    build: Callable[..., ir.Value | Sequence[ir.Value]],
) -> ir.Model:
    """Return a model with these inputs (shape, or shape and type); `build(builder, *inputs)` returns its outputs."""
    values = []
    for name, described in inputs.items():
        typed = len(described) == 2 and isinstance(described[1], ir.DataType)
        shape, dtype = described if typed else (described, FLOAT)
        values.append(ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype)))
    opsets = {"": 20, "com.microsoft": 1, "edge_far": 1}
    graph = ir.Graph(values, [], nodes=[], name="tiny", opset_imports=opsets)
    builder = Builder(graph, "t")
    outputs = build(builder, *values)
    outputs = [outputs] if isinstance(outputs, ir.Value) else list(outputs)
    for number, value in enumerate(outputs):
        value.name = f"y{number}"
    graph.extend(builder.nodes)
    graph.outputs.extend(outputs)
    return ir.Model(graph, ir_version=10)


def run_graph(model: ir.Model, *arrays: np.ndarray, **named: np.ndarray) -> list[np.ndarray]:
    """Run a copy of the model, its internal operators lowered, on arrays in the order of its inputs, or by name."""
    copy = model.clone()
    copy.graph.meta.update(model.graph.meta)
    lower_internal_operators(copy)
    copy.graph.opset_imports.pop("edge_far", None)
    feeds = {str(value.name): array for value, array in zip(copy.graph.inputs, arrays, strict=False)} | named
    if any(node.op_type == "Attention" for node in copy.graph):
        copy.graph.opset_imports[""] = ATTENTION_OPSET
        found = run_on_stock_runtime(ir.to_proto(copy).SerializeToString(), feeds)
        return [found[str(value.name)] for value in copy.graph.outputs]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(ir.to_proto(copy).SerializeToString(), options, ["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, feeds)
    return outputs


def operators(model: ir.Model) -> list[str]:
    """Return the operators in execution order, with their domain where it is not the standard one."""
    return [f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph]


def random_array(seed: int, *shape: int) -> np.ndarray:
    """Return standard normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
