"""The portable graphs hold nothing but operators on this list: each has a CPU kernel in the stock wheel.

tests/device/engine/test_session.py proves it by running them in the device's environment.
"""

from __future__ import annotations

import re
from collections import Counter

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


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_only_operators_with_a_stock_kernel(name: str, tiny_bundle) -> None:
    for graph in GRAPHS:
        model = load(tiny_bundle(name), graph)
        used = Counter((node.domain, node.op_type) for node in model.graph)
        allowed = {("", op) for op in STANDARD} | {("com.microsoft", op) for op in MICROSOFT}
        assert set(used) <= allowed
        assert not model.functions
        # Attention is of opset 23, a DequantizeLinear of blocks of 21; all else needs no more than 20.
        blocked = any("block_size" in node.attributes for node in model.graph)
        opset = 23 if ("", "Attention") in used else 21 if blocked else 20
        assert dict(model.opset_imports) == {"": opset, "com.microsoft": 1} and model.ir_version <= 10


def test_the_list_has_nothing_that_no_graph_uses(tiny_bundle) -> None:
    used = {node.op_type for case in CASES for graph in GRAPHS for node in load(tiny_bundle(case.name), graph).graph}
    assert used == STANDARD | MICROSOFT


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
