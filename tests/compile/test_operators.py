"""The portable graphs hold nothing but operators on this list: each has a CPU kernel in the stock wheel.

tests/device/engine/test_session.py proves it by running them in the device's environment.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from tests.tiny_cases import CASES, cases

pytestmark = pytest.mark.host

STANDARD = {
    "Abs",
    "Add",
    "Attention",
    "Cast",
    "Concat",
    "ConstantOfShape",
    "DequantizeLinear",
    "Div",
    "DynamicQuantizeLinear",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Gather",
    "GatherND",
    "Gelu",
    "Gemm",
    "Greater",
    "LayerNormalization",
    "Less",
    "LogSoftmax",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "OneHot",
    "Pad",
    "QLinearMatMul",
    "QuantizeLinear",
    "ReduceL2",
    "ReduceMax",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "ScatterND",
    "Shape",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Squeeze",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "Where",
}
MICROSOFT = {
    "BiasGelu",
    "DynamicQuantizeMatMul",
    "FusedMatMul",
    "MatMulIntegerToFloat",
    "QLinearAdd",
    "QLinearMul",
    "QLinearSigmoid",
    "QuickGelu",
    "RotaryEmbedding",
    "SkipLayerNormalization",
}
GRAPHS = ("step", "infer")
ABSOLUTE_PATH = re.compile(rb"/(work|home|root|tmp|usr)/[\w./-]+")


def load(bundle, graph: str) -> ir.Model:
    return ir.load(bundle.path(f"portable/{graph}.onnx"))


@dataclass(frozen=True)
class Needs:
    """What a graph asks of the runtime that loads it; `blocked` is a DequantizeLinear of blocks."""

    operators: frozenset[tuple[str, str]]
    blocked: bool
    functions: int
    opsets: dict[str, int]
    ir_version: int


@functools.cache
def needs(path: Path) -> Needs:
    model = ir.load(path)
    operators = frozenset((node.domain, node.op_type) for node in model.graph)
    blocked = any("block_size" in node.attributes for node in model.graph)
    return Needs(operators, blocked, len(model.functions), dict(model.opset_imports), model.ir_version)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_only_operators_with_a_stock_kernel(name: str, tiny_bundle) -> None:
    for graph in GRAPHS:
        needed = needs(tiny_bundle(name).path(f"portable/{graph}.onnx"))
        allowed = {("", op) for op in STANDARD} | {("com.microsoft", op) for op in MICROSOFT}
        assert needed.operators <= allowed
        assert not needed.functions
        # Attention is of opset 23, a DequantizeLinear of blocks of 21; all else needs no more than 20.
        opset = 23 if ("", "Attention") in needed.operators else 21 if needed.blocked else 20
        assert needed.opsets == {"": opset, "com.microsoft": 1} and needed.ir_version <= 10


def test_the_list_has_nothing_that_no_graph_uses(tiny_bundle) -> None:
    paths = [tiny_bundle(case.name).path(f"portable/{graph}.onnx") for case in CASES for graph in GRAPHS]
    assert {operator for path in paths for _, operator in needs(path).operators} == STANDARD | MICROSOFT


@pytest.mark.parametrize("name", [case.name for case in cases(precision="int8", cut=False)])
def test_int8_graphs_multiply_non_learners_in_integers_both_ways(name: str, tiny_bundle) -> None:
    """Two products an FFN, both ways; four of heads forward, and backward in all blocks but the lowest that learns."""
    bundle = tiny_bundle(name)
    frozen = {"forward": 0, "backward": 0}
    for node in load(bundle, "step").graph:
        if node.op_type in ("DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QLinearMatMul"):
            stored = node.inputs[3 if node.op_type == "QLinearMatMul" else 1]
            assert stored is not None and stored.dtype == ir.DataType.INT8
            frozen[str(stored.name).split(".")[-2]] += 1
    selection = bundle.manifest.selection
    blocks, of_heads = bundle.manifest.model.blocks - selection.cut, 4 if selection.attention == "heads" else 0
    assert frozen == {"forward": (2 + of_heads) * blocks, "backward": 2 * blocks + of_heads * (blocks - 1)}
    stored = [str(v.name) for v in load(bundle, "step").graph.initializers.values() if v.shape and len(v.shape) == 2]
    assert not [name for name in stored if "frozen" in name and not name.endswith((".int8", ".scales"))]


@pytest.mark.parametrize("name", ["bert-r10-2", "tiny-int8"])
def test_large_constants_lie_outside_the_graphs(name: str, tiny_bundle) -> None:
    bundle = tiny_bundle(name)
    for graph in (*GRAPHS, "release"):
        for value in load(bundle, graph).graph.initializers.values():
            assert value.const_value is not None
            external = isinstance(value.const_value, ir.ExternalTensor)
            assert external or value.const_value.nbytes < 1024
            assert not external or value.const_value.location == "weights.bin"


@pytest.mark.parametrize("name", ["roberta-r10-2", "tiny-int8"])
def test_graphs_name_no_path_of_the_machine_that_made_them(name: str, tiny_bundle) -> None:
    for graph in (*GRAPHS, "release"):
        found = ABSOLUTE_PATH.search(tiny_bundle(name).path(f"portable/{graph}.onnx").read_bytes())
        assert found is None, found
