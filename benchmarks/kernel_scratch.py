"""What ONNX Runtime's kernels hold while they run, besides inputs and outputs.

compile/memory/liveness.py adds it to the peak.

    python benchmarks/kernel_scratch.py

Each operator runs alone on large tensors in a fresh process of the device's environment, without an arena; printed is
how far the peak of the resident set rose above the output.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bench.environments import python_or_exit

ROWS, WIDE, NARROW, BATCH, LENGTH, HEADS = 8192, 2765, 768, 64, 128, 12
SCRIPT = """
import sys
import numpy as np
import onnxruntime as ort
from edge_far.device.board.memory import resident_set
from edge_far.device.engine.options import load_session, session_options

options = session_options(2)
options.add_session_config_entry("session.use_env_allocators", "0")
options.enable_cpu_mem_arena = False
session = load_session(sys.argv[1], options)
types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
feeds = {each.name: np.ones(each.shape, types[each.type]) for each in session.get_inputs()}
before = resident_set().now_mib
outputs = session.run(None, feeds)
made = sum(each.nbytes for each in outputs) / 2**20
print(f"{made:.0f} {resident_set().peak_mib - before - made:.0f}")
"""


def main() -> None:
    """Print a Markdown table."""
    python = python_or_exit("edge-far")
    print("| operator | output, MiB | besides, MiB |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="edge-far-scratch-") as folder:
        for name, model in _models().items():
            path = Path(folder, f"{name}.onnx")
            onnx.save(model, path)
            command = [str(python), "-c", SCRIPT, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            made, besides = done.stdout.split()
            print(f"| {name} | {made} | {besides} |")


def _models() -> dict[str, onnx.ModelProto]:
    matrix = numpy_helper.from_array(np.ones((WIDE, NARROW), np.int8), "w")
    scales = numpy_helper.from_array(np.full(NARROW, 0.01, np.float32), "s")
    one = numpy_helper.from_array(np.float32(1), "one")
    shift = numpy_helper.from_array(np.full(WIDE, 0.002, np.float32), "d")
    wide = {"x": (TensorProto.FLOAT, [ROWS, WIDE])}
    parts: dict[str, tuple[int, list[int]]] = {n: (TensorProto.FLOAT, [BATCH, LENGTH, NARROW]) for n in "qkv"}
    attention = parts | {"m": (TensorProto.FLOAT, [BATCH, 1, LENGTH, LENGTH])}
    contrib = {"domain": "com.microsoft"}
    heads = {"q_num_heads": HEADS, "kv_num_heads": HEADS, "qk_matmul_output_mode": 3}
    return {
        "Gelu": _model(helper.make_node("Gelu", ["x"], ["y"]), wide),
        "BiasGelu": _model(helper.make_node("BiasGelu", ["x", "d"], ["y"], **contrib), wide, shift),
        "Erf": _model(helper.make_node("Erf", ["x"], ["y"]), wide),
        "DynamicQuantizeMatMul": _model(
            helper.make_node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], **contrib), wide, matrix, scales
        ),
        "MatMulIntegerToFloat": _model(
            helper.make_node("MatMulIntegerToFloat", ["x", "w", "one", "s"], ["y"], **contrib),
            {"x": (TensorProto.UINT8, [ROWS, WIDE])},
            matrix,
            scales,
            one,
        ),
        "MatMulIntegerToFloat, a factor a row": _model(
            helper.make_node("MatMulIntegerToFloat", ["x", "w", "r", "s"], ["y"], **contrib),
            {"x": (TensorProto.UINT8, [ROWS, WIDE])},
            matrix,
            scales,
            numpy_helper.from_array(np.ones((ROWS, 1), np.float32), "r"),
        ),
        "QLinearMatMul": _model(
            helper.make_node("QLinearMatMul", ["x", "one", "z", "w", "s", "n", "one", "z"], ["y"]),
            {"x": (TensorProto.UINT8, [ROWS, WIDE])},
            matrix,
            scales,
            one,
            numpy_helper.from_array(np.array(128, np.uint8), "z"),
            numpy_helper.from_array(np.array(0, np.int8), "n"),
            output=TensorProto.UINT8,
        ),
        "Gemm with an addition": _model(
            helper.make_node("Gemm", ["x", "v", "c"], ["y"]),
            wide | {"v": (TensorProto.FLOAT, [WIDE, NARROW]), "c": (TensorProto.FLOAT, [ROWS, NARROW])},
        ),
        "Attention": _model(helper.make_node("Attention", ["q", "k", "v", "m"], ["y"], **heads), attention),
    }


def _model(
    node: onnx.NodeProto,
    inputs: dict[str, tuple[int, list[int]]],
    *constants: onnx.TensorProto,
    output: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    outputs = [helper.make_tensor_value_info("y", output, None)]
    graph = helper.make_graph([node], "kernel", values, outputs, list(constants))
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 10
    return model


if __name__ == "__main__":
    main()
