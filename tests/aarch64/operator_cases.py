"""The operators of training steps and releases as tiny ONNX models, for comparing processors (workstation).

    python -m tests.aarch64.operator_cases DIRECTORY

writes, for every case, STEM.onnx, STEM.npz (its inputs and, as `expected`, its first output computed here by
NumPy in double precision) and all cases' names, tolerances and output bindings in cases.json. It knows
nothing of edge_far: it warns early that a board's core lacks an instruction or that a kernel differs there.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.aarch64.case import COLUMNS, EXACT, FLOAT, FLOAT16, FP32, INNER, INT32, MICROSOFT, ROWS, UINT8, Case
from tests.aarch64.plain_cases import arithmetic, integer_products, rotations, shapes
from tests.aarch64.quantized_cases import quantized_products, quantizers


def _matrix_products(rng: np.random.Generator) -> list[Case]:
    a = rng.standard_normal((ROWS, INNER), dtype=np.float32)
    b = rng.standard_normal((INNER, COLUMNS), dtype=np.float32)
    c = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    exact = a.astype(np.float64) @ b
    stored = ("b",)
    at, bt = np.ascontiguousarray(a.T), np.ascontiguousarray(b.T)
    return [
        Case("MatMul", "MatMul", {"a": a, "b": b}, exact, FP32, constants=stored),
        Case("MatMul of two inputs", "MatMul", {"a": a, "b": b}, exact, FP32),
        Case(
            "Gemm, C updated in place",
            "Gemm",
            {"a": at, "b": b, "c": c},
            exact + c,
            FP32,
            attributes={"transA": 1},
            in_place="c",
        ),
        Case(
            "FusedMatMul, A transposed",
            "FusedMatMul",
            {"a": at, "b": b},
            0.125 * exact,
            FP32,
            MICROSOFT,
            attributes={"transA": 1, "alpha": 0.125},
        ),
        Case(
            "FusedMatMul, B transposed",
            "FusedMatMul",
            {"a": a, "b": bt},
            0.125 * exact,
            FP32,
            MICROSOFT,
            constants=stored,
            attributes={"transB": 1, "alpha": 0.125},
        ),
    ]


def _elementwise(rng: np.random.Generator) -> list[Case]:
    x = rng.standard_normal((3, 11, 64), dtype=np.float32) * 2
    wide = x.astype(np.float64)
    gain = rng.standard_normal(64, dtype=np.float32)
    bias = rng.standard_normal(64, dtype=np.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    normalised = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    exponential = np.exp(wide - wide.max(-1, keepdims=True))
    erf = np.vectorize(math.erf)(wide)
    gelu = 0.5 * wide * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
    return [
        Case(
            "LayerNormalization, 3 outputs",
            "LayerNormalization",
            {"x": x, "gain": gain, "bias": bias},
            normalised * gain + bias,
            FP32,
            outputs=(FLOAT, FLOAT, FLOAT),
            attributes={"axis": -1},
        ),
        Case(
            "SkipLayerNormalization",
            "SkipLayerNormalization",
            {"x": 0.25 * x, "skip": 0.75 * x, "gain": gain, "bias": bias},
            normalised * gain + bias,
            FP32,
            MICROSOFT,
            attributes={"epsilon": 1e-5},
        ),
        Case(
            "Softmax",
            "Softmax",
            {"x": x},
            exponential / exponential.sum(-1, keepdims=True),
            FP32,
            attributes={"axis": -1},
        ),
        Case("Exp", "Exp", {"x": x}, np.exp(wide), FP32),
        Case(
            "LogSoftmax",
            "LogSoftmax",
            {"x": x},
            np.log(exponential / exponential.sum(-1, keepdims=True)),
            FP32,
            attributes={"axis": -1},
        ),
        Case("Erf", "Erf", {"x": x}, erf, FP32),
        Case("Gelu", "Gelu", {"x": x}, gelu, FP32, MICROSOFT),
        Case("Tanh", "Tanh", {"x": x}, np.tanh(wide), FP32),
        Case("Sigmoid", "Sigmoid", {"x": x}, 1 / (1 + np.exp(-wide)), FP32),
        Case("Softplus", "Softplus", {"x": x * 40}, np.logaddexp(0.0, (x * 40).astype(np.float64)), FP32),
        Case("Max", "Max", {"x": x, "y": gain}, np.maximum(wide, gain), FP32),
        Case("Min", "Min", {"x": x, "y": gain}, np.minimum(wide, gain), FP32),
        Case(
            "QuickGelu", "QuickGelu", {"x": x}, wide / (1 + np.exp(-wide)), FP32, MICROSOFT, attributes={"alpha": 1.0}
        ),
        Case(
            "ReduceL2 of rows",
            "ReduceL2",
            {"x": x, "axes": np.array([-1])},
            np.sqrt((wide**2).sum(-1)),
            FP32,
            constants=("axes",),
            attributes={"keepdims": 0},
        ),
        Case(
            "ReduceSum",
            "ReduceSum",
            {"x": x, "axes": np.array([0, 1])},
            wide.sum((0, 1)),
            FP32,
            constants=("axes",),
            attributes={"keepdims": 0},
        ),
    ]


def _indexing(rng: np.random.Generator) -> list[Case]:
    table = rng.integers(0, 256, (256, 64)).astype(np.uint8)
    values = rng.standard_normal(256, dtype=np.float32)
    factors = rng.standard_normal((256, 8), dtype=np.float32)
    codes = rng.integers(0, 256, (3, 11)).astype(np.int32)
    total = rng.standard_normal((29, 8), dtype=np.float32)
    updates = rng.standard_normal((40, 8), dtype=np.float32)
    indices = rng.integers(0, 29, (40, 1))  # repeated on purpose: a gather's gradient adds
    added = total.astype(np.float64)
    np.add.at(added, indices[:, 0], updates)
    labels = rng.integers(0, 5, 7)
    return [
        Case(
            "Cast uint8 to int32",
            "Cast",
            {"x": table},
            table,
            EXACT,
            outputs=(INT32,),
            attributes={"to": INT32},
        ),
        Case(
            "Gather, rows of a uint8 table",
            "Gather",
            {"table": table, "codes": codes},
            table[codes],
            EXACT,
            constants=("table",),
            outputs=(UINT8,),
        ),
        Case(
            "Gather, 256 floats by code",
            "Gather",
            {"table": values, "codes": codes},
            values[codes],
            EXACT,
            constants=("table",),
        ),
        Case(
            "Gather, 256 rows of 8 floats by code",
            "Gather",
            {"table": factors, "codes": codes},
            factors[codes],
            EXACT,
            constants=("table",),
        ),
        Case(
            "ScatterND add, in place",
            "ScatterND",
            {"x": total, "indices": indices, "updates": updates},
            added,
            FP32,
            attributes={"reduction": "add"},
            in_place="x",
        ),
        Case(
            "ScatterND add, repeated rows",
            "ScatterND",
            {"x": total, "indices": indices, "updates": updates},
            added,
            FP32,
            attributes={"reduction": "add"},
        ),
        Case(
            "ScatterND add, several rows a token",
            "ScatterND",
            {"x": total, "indices": indices.reshape(5, 4, 2, 1), "updates": updates.reshape(5, 4, 2, 8)},
            added,
            FP32,
            attributes={"reduction": "add"},
        ),
        Case(
            "OneHot",
            "OneHot",
            {"labels": labels, "depth": np.array(5), "values": np.array([0, 1], np.float32)},
            np.eye(5)[labels],
            EXACT,
            constants=("depth", "values"),
            attributes={"axis": -1},
        ),
    ]


def _step_operators(rng: np.random.Generator) -> list[Case]:
    """What the step graph takes besides: fused attention, shifted GELU, one scale a row or block, 16-bit stashes."""
    batch, length, heads, width = 2, 9, 4, 16
    q, k, v = rng.standard_normal((3, batch, length, heads * width), dtype=np.float32)
    mask = np.zeros((batch, 1, length, length), np.float32)
    mask[1, ..., 6:] = -1e9
    split = [x.astype(np.float64).reshape(batch, length, heads, width).transpose(0, 2, 1, 3) for x in (q, k, v)]
    scores = 0.25 * split[0] @ split[1].transpose(0, 1, 3, 2) + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    attended = (weights @ split[2]).transpose(0, 2, 1, 3).reshape(q.shape)
    x = rng.standard_normal((ROWS, INNER), dtype=np.float32)
    shift = rng.standard_normal(INNER, dtype=np.float32)
    shifted = x.astype(np.float64) + shift
    gelu = 0.5 * shifted * (1 + np.vectorize(math.erf)(shifted / math.sqrt(2)))
    rows = rng.uniform(0.01, 0.05, ROWS).astype(np.float32)
    by_rows = np.clip(np.rint(x / rows[:, None]) + 128, 0, 255)
    blocks = rng.integers(-127, 128, (INNER, COLUMNS)).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, (INNER // 16, COLUMNS)).astype(np.float32)
    half = x.astype(np.float16)
    return [
        Case(
            "Attention with a mask",
            "Attention",
            {"q": q, "k": k, "v": v, "mask": mask},
            attended,
            FP32,
            outputs=(FLOAT,) * 4,
            attributes={"q_num_heads": heads, "kv_num_heads": heads, "scale": 0.25, "qk_matmul_output_mode": 3},
        ),
        Case("BiasGelu", "BiasGelu", {"x": x, "shift": shift}, gelu, FP32, MICROSOFT, ("shift",)),
        Case(
            "QuantizeLinear uint8, a scale a row",
            "QuantizeLinear",
            {"x": x, "scales": rows, "zeros": np.full(ROWS, 128, np.uint8)},
            by_rows,
            EXACT,
            outputs=(UINT8,),
            attributes={"axis": 0},
        ),
        Case(
            "DequantizeLinear int8 in blocks",
            "DequantizeLinear",
            {"x": blocks, "scales": scales},
            blocks * np.repeat(scales.astype(np.float64), 16, axis=0),
            FP32,
            constants=("x", "scales"),
            attributes={"axis": 0, "block_size": 16},
        ),
        Case("Cast to float16", "Cast", {"x": x}, half, EXACT, outputs=(FLOAT16,), attributes={"to": FLOAT16}),
        Case("Cast from float16", "Cast", {"x": half}, half, EXACT, attributes={"to": FLOAT}),
    ]


def all_cases() -> list[Case]:
    """Every case, with the same random values each time."""
    rng = np.random.default_rng(7)
    earlier = (_matrix_products, quantized_products, quantizers, _elementwise, _indexing, _step_operators)
    return [case for part in (*earlier, arithmetic, shapes, rotations, integer_products) for case in part(rng)]


def build_model(case: Case) -> onnx.ModelProto:
    """The case as a model of opset 23, IR version 10."""
    outputs = [f"out{index}" for index in range(len(case.outputs))]
    node = helper.make_node(case.operator, list(case.arguments), outputs, domain=case.domain, **case.attributes)
    graph = helper.make_graph(
        [node],
        "probe",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
            for name, value in case.arguments.items()
            if name not in case.constants
        ],
        [helper.make_tensor_value_info(n, dtype, None) for n, dtype in zip(outputs, case.outputs, strict=True)],
        [numpy_helper.from_array(case.arguments[name], name) for name in case.constants],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, case in enumerate(all_cases()):
        stem = f"{number:03d}"
        (directory / f"{stem}.onnx").write_bytes(build_model(case).SerializeToString())
        inputs = {name: value for name, value in case.arguments.items() if name not in case.constants}
        np.savez(directory / f"{stem}.npz", expected=case.expected, **inputs)
        entries.append({"name": case.name, "stem": stem, "tolerance": case.tolerance, "in_place": case.in_place})
    (directory / "cases.json").write_text(json.dumps(entries, indent=1))


if __name__ == "__main__":
    main()
