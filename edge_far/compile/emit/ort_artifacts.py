"""Writes the artifacts of onnxruntime-training (1.19.2, the last release) from the folded forward graph.

    training_model.onnx     the model's inputs, (dropout_factor), labels, parameters -> loss, logits, gradients
    eval_model.onnx         the same inputs -> loss, logits, without dropout
    optimizer_model.onnx    AdamW, for programs that use the package's own optimiser
    checkpoint              trained parameters, and the large frozen constants, which both models share

The loss is the mean cross-entropy of the batch, labels are int64 [batch]. `dropout_factor`, a float scalar, is
multiplied with every dropout probability: 1 trains as configured, 0 without dropout; a model without dropout has
no such input. Here the package differentiates the graph, and none of our rules does: the artifacts are an oracle
for the portable step, and a backend where its wheel exists.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from edge_far.bundles.manifest import DROPOUT_FACTOR
from edge_far.compile.forward.dropout import remove_dropout
from edge_far.compile.graph.builder import MICROSOFT
from edge_far.console import Console
from edge_far.process.packages import training_package_missing
from edge_far.storage import storage_error

__all__ = ["write_ort_artifacts"]

NEWEST_IR_VERSION = 10  # onnxruntime 1.19 refuses newer models
SHARED_BYTES = 1024  # smaller constants stay inside both models, where the runtime can fold them
LOSS = "softmax"  # cross-entropy: the one that the artifacts are made with
LEFT_OUT = "left out the ort/ artifacts"
_GENERATED_NAME = re.compile(r"^onnx::(.+)::\d+$")


def write_ort_artifacts(
    directory: Path,
    folded: ir.Model,
    values: Mapping[str, np.ndarray],
    console: Console,
    *,
    dropout: bool,
    loss: str = LOSS,
) -> bool:
    """Write the four artifacts into the new `directory`; return False, and say why, where that is impossible.

    `folded` is the forward graph in standard operators, the learners among its inputs; `values` are their
    float32 values by name; `loss` is the task's. The same arguments give the same bytes. Raises StorageError when
    writing fails.
    """
    missing = training_package_missing()
    if missing is not None:
        console.info(f"{LEFT_OUT}: {missing}")
        return False
    if loss != LOSS:
        console.info(f"{LEFT_OUT}: they know the loss {LOSS} alone, this task's is {loss}")
        return False
    tables = _trained_tables(folded.graph, values)
    if tables:
        console.info(f"{LEFT_OUT}: onnxruntime-training gets wrong gradients of trained embeddings ({tables[0]})")
        return False
    model = _training_graph(folded, values, dropout=dropout)
    try:
        directory.mkdir()
        _generate(directory, model, values)
    except OSError as error:
        raise storage_error(error, directory) from error
    except Exception as error:  # the package raises RuntimeError, LookupError, and its own exceptions
        shutil.rmtree(directory, ignore_errors=True)
        culprit = _culprit(model, values)
        console.warn(f"{LEFT_OUT}: onnxruntime-training refuses {culprit}: {_reason(error)}")
        return False
    return True


def _trained_tables(graph: ir.Graph, values: Mapping[str, np.ndarray]) -> list[str]:
    """Return the trained parameters that a look-up reads.

    With symbolic axes the gradient of a position table is wrong, and written out of bounds at batch > 1.
    """
    looked_up = (node.inputs[0] for node in graph if node.op_type == "Gather")
    return [str(value.name) for value in looked_up if value is not None and value.name in values]


def _training_graph(folded: ir.Model, values: Mapping[str, np.ndarray], *, dropout: bool) -> onnx.ModelProto:
    """Return the forward graph with learners as initializers and the loss as first output."""
    clone = folded.clone()
    if not dropout:
        remove_dropout(clone)
    graph = clone.graph
    for value in [value for value in graph.inputs if value.name in values]:
        graph.inputs.remove(value)
        name = str(value.name)
        value.const_value = ir.tensor(np.require(values[name], np.float32, "C"), name=name)
        graph.initializers[name] = value
    model = ir.serde.serialize_model(clone)
    model.ir_version = min(model.ir_version, NEWEST_IR_VERSION)
    _complete_outputs(model.graph)
    _name_fast_gelu(model)
    _scale_dropout(model.graph)
    _add_loss(model.graph)
    _strip_notes(model)
    return model


def _complete_outputs(graph: onnx.GraphProto) -> None:
    """Give LayerNormalization and Dropout the outputs that their gradients read."""
    for node in graph.node:
        if node.op_type == "LayerNormalization":
            statistics = [f"{node.name}.mean", f"{node.name}.inverse_deviation"]
            node.output.extend(statistics[len(node.output) - 1 :])
        elif node.op_type == "Dropout":
            node.output.extend([f"{node.name}.mask"][len(node.output) - 1 :])


def _name_fast_gelu(model: onnx.ModelProto) -> None:
    """Name the GELU by a hyperbolic tangent so that it gets its own gradient, not the exact one's."""
    gelus = [node for node in model.graph.node if node.op_type == "Gelu"]
    found = [node for node in gelus if any(attribute.s == b"tanh" for attribute in node.attribute)]
    for node in found:
        node.op_type, node.domain = "FastGelu", MICROSOFT
        node.ClearField("attribute")
    if found and MICROSOFT not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))


def _scale_dropout(graph: onnx.GraphProto) -> None:
    """Multiply every dropout probability by the new input.

    Dropout's own input training_mode is no switch: the gradient kernel of 1.19.2 scales by 1 / (1 - probability)
    whatever it says.
    """
    ratios = {node.input[1] for node in graph.node if node.op_type == "Dropout"}
    if not ratios:
        return
    graph.input.append(onnx.helper.make_tensor_value_info(DROPOUT_FACTOR, onnx.TensorProto.FLOAT, []))
    for ratio in sorted(ratios, reverse=True):
        scaled = onnx.helper.make_node("Mul", [ratio, DROPOUT_FACTOR], [f"{ratio}.scaled"], name=f"{ratio}.scaled")
        graph.node.insert(0, scaled)
    for node in graph.node:
        if node.op_type == "Dropout":
            node.input[1] = f"{node.input[1]}.scaled"


def _add_loss(graph: onnx.GraphProto) -> None:
    """Append the mean cross-entropy of `logits`, under our names: the package numbers its own by calls."""
    logits = graph.output[0]
    batch = logits.type.tensor_type.shape.dim[0].dim_param
    graph.input.append(onnx.helper.make_tensor_value_info("labels", onnx.TensorProto.INT64, [batch]))
    outputs = ["loss", "log_probabilities"]
    graph.node.append(
        onnx.helper.make_node(
            "SoftmaxCrossEntropyLoss", [logits.name, "labels"], outputs, name="loss", reduction="mean"
        )
    )
    graph.output.insert(0, onnx.helper.make_tensor_value_info("loss", onnx.TensorProto.FLOAT, []))


def _strip_notes(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: they hold stack traces with this machine's paths."""
    graph = model.graph
    values = (*graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for part in (model, graph, *graph.node, *values):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _generate(directory: Path, model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> None:
    with _quiet_runtime():
        from onnxruntime.training import artifacts

        artifacts.generate_artifacts(
            _copy(model),
            requires_grad=list(values),
            frozen_params=_shared_constants(model.graph, values),
            optimizer=artifacts.OptimType.AdamW,
            artifact_directory=directory,
        )
    path = directory / "optimizer_model.onnx"
    optimizer = onnx.load(path)
    optimizer.ir_version = min(optimizer.ir_version, NEWEST_IR_VERSION)
    for node in optimizer.graph.node:
        node.name = _own_name(node.name)
        node.output[:] = [_own_name(name) for name in node.output]
    for output in optimizer.graph.output:
        output.name = _own_name(output.name)
    onnx.save(optimizer, path)


def _shared_constants(graph: onnx.GraphProto, values: Collection[str]) -> list[str]:
    """Return the large frozen constants: as 'frozen parameters' they are stored, and in memory, once."""
    return [
        tensor.name
        for tensor in graph.initializer
        if tensor.name not in values
        and tensor.data_type == onnx.TensorProto.FLOAT
        and 4 * int(np.prod(tensor.dims)) >= SHARED_BYTES
    ]


def _own_name(name: str) -> str:
    """onnx::adamw.updated_flag::17 -> adamw.updated_flag: the number counts calls in this process."""
    return _GENERATED_NAME.sub(r"\1", name)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    clone = onnx.ModelProto()
    clone.CopyFrom(model)
    return clone


# --- which node is to blame -------------------------------------------------------------------------------


def _culprit(model: onnx.ModelProto, values: Collection[str]) -> str:
    """Name the first node whose gradient cannot be built, by building that of every node before it.

    The package's own message often names a line of its source only.
    """
    probe = _without_large_tensors(model, values)
    trained = set(values)
    needed: list[onnx.NodeProto] = []
    for node in probe.graph.node:
        needed.append(node)
        read = trained.intersection(node.input)
        if not read:
            continue
        trained.add(node.output[0])
        if not _differentiable(probe, needed, node, values):
            return f"the operator {node.op_type} (node {node.name})"
    return "the graph"


def _without_large_tensors(model: onnx.ModelProto, values: Collection[str]) -> onnx.ModelProto:
    """Turn learners and large constants into inputs, as the package does, so that a try costs little."""
    probe = _copy(model)
    graph = probe.graph
    moved = {*values, *_shared_constants(graph, values)}
    for tensor in graph.initializer:
        if tensor.name in moved:
            shape = list(tensor.dims)
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, shape))
    small = [tensor for tensor in graph.initializer if tensor.name not in moved]
    del graph.initializer[:]
    graph.initializer.extend(small)
    return probe


def _differentiable(
    probe: onnx.ModelProto, nodes: list[onnx.NodeProto], last: onnx.NodeProto, values: Collection[str]
) -> bool:
    """Say whether the package builds the gradient of the sum of one node's output."""
    model = _copy(probe)
    del model.graph.node[:]
    wanted = {last.output[0]}
    ancestors = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            ancestors.append(node)
            wanted.update(node.input)
    model.graph.node.extend(reversed(ancestors))
    total = onnx.helper.make_node("ReduceSum", [last.output[0]], ["probe"], name="probe", keepdims=0)
    model.graph.node.append(total)
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("probe", onnx.TensorProto.FLOAT, []))
    reached = {name for name in values if name in wanted}
    with _quiet_runtime():
        from onnxruntime.capi._pybind_state import GradientGraphBuilder

        try:
            GradientGraphBuilder(model.SerializeToString(), {"probe"}, reached, "probe", None).build()
        except Exception:  # any failure is the answer
            return False
    return True


@contextmanager
def _quiet_runtime() -> Iterator[None]:
    """Close stderr to the runtime, which prints each of its passes there whatever log level is set."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package imports deprecated parts of torch
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)


def _reason(error: Exception) -> str:
    """Return the first line of a message; of a failed C++ condition only what follows its source and signature."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return line.rpartition(" was false. ")[2].strip() or line
