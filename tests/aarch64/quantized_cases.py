"""The cases of operators that work on 8 bits: products with quantised matrices, quantisers, arithmetic on bytes."""

from __future__ import annotations

import numpy as np

from tests.aarch64.case import BYTE, COLUMNS, EXACT, FLOAT, FP32, INNER, INT8, MICROSOFT, ROWS, UINT8, Case

__all__ = ["quantized_products", "quantizers"]


def quantized_products(rng: np.random.Generator) -> list[Case]:
    cases = []
    for label, extreme in (("", False), (", all weights +-127", True)):
        a = rng.standard_normal((ROWS, INNER), dtype=np.float32)
        if extreme:
            a = np.where(a > 0, np.float32(2), np.float32(-2))
        b, scale = _quantized_weight(rng, extreme)
        exact = a.astype(np.float64) @ (b * scale.astype(np.float64))
        cases.append(
            Case(
                f"DynamicQuantizeMatMul{label}",
                "DynamicQuantizeMatMul",
                {"a": a, "b": b, "scale": scale},
                exact,
                INT8,
                MICROSOFT,
                ("b", "scale"),
            )
        )

        codes = rng.integers(0, 256, (ROWS, INNER)) if not extreme else np.where(a > 0, 255, 0)
        codes = codes.astype(np.uint8)
        a_scale, zero = np.array(0.02, np.float32), np.array(128, np.uint8)
        row_scales = rng.uniform(0.001, 1.0, (ROWS, 1)).astype(np.float32)
        product = (codes.astype(np.int64) - 128) @ b.astype(np.int64)
        cases.append(
            Case(
                f"MatMulIntegerToFloat{label}",
                "MatMulIntegerToFloat",
                {"a": codes, "b": b, "a_scale": a_scale, "scale": scale, "zero": zero},
                product * (float(a_scale) * scale.astype(np.float64)),
                FP32,
                MICROSOFT,
                ("b", "a_scale", "scale", "zero"),
            )
        )

        cases.append(
            Case(
                f"MatMulIntegerToFloat, a factor a row{label}",
                "MatMulIntegerToFloat",
                {"a": codes, "b": b, "a_scale": row_scales, "scale": scale, "zero": zero},
                product * (row_scales * scale.astype(np.float64)),
                FP32,
                MICROSOFT,
                ("b", "scale", "zero"),
            )
        )

        # An output step that leaves most values inside 8 bits and clips a few.
        step = np.array(np.abs(product * scale).std() * float(a_scale) * 3 / 127, np.float32)
        quantised = np.rint(product * (float(a_scale) * scale.astype(np.float64)) / step) + 128
        cases.append(
            Case(
                f"QLinearMatMul{label}",
                "QLinearMatMul",
                {
                    "a": codes,
                    "a_scale": a_scale,
                    "zero": zero,
                    "b": b,
                    "scale": scale,
                    "none": np.array(0, np.int8),
                    "step": step,
                    "middle": zero,
                },
                np.clip(quantised, 0, 255),
                BYTE,
                constants=("a_scale", "zero", "b", "scale", "none", "step", "middle"),
                outputs=(UINT8,),
            )
        )

        # MatMulNBits keeps B transposed in blocks along INNER, its zero point is 128.
        unsigned = (b.T.astype(np.int16) + 128).astype(np.uint8)
        for level, tolerance in ((4, INT8), (0, FP32)):
            for block in (32, 128):
                blocks = INNER // block
                packed = unsigned.reshape(COLUMNS, blocks, block)
                scales = np.repeat(scale, blocks).reshape(COLUMNS, blocks)
                cases.append(
                    Case(
                        f"MatMulNBits 8 bit, block {block}, level {level}{label}",
                        "MatMulNBits",
                        {"a": a, "b": packed, "scales": scales},
                        exact,
                        tolerance,
                        MICROSOFT,
                        ("b", "scales"),
                        attributes={
                            "K": INNER,
                            "N": COLUMNS,
                            "bits": 8,
                            "block_size": block,
                            "accuracy_level": level,
                        },
                    )
                )
    return cases


def quantizers(rng: np.random.Generator) -> list[Case]:
    x = rng.standard_normal((ROWS, INNER), dtype=np.float32)
    scale, zero = np.array(0.03, np.float32), np.array(120, np.uint8)
    codes = np.clip(np.rint(x / scale) + 120, 0, 255).astype(np.uint8)
    low, high = min(0.0, float(x.min())), max(0.0, float(x.max()))
    step = np.float32((np.float32(high) - np.float32(low)) / 255)
    dynamic_zero = np.clip(np.rint(-np.float32(low) / step), 0, 255)
    dynamic = np.clip(np.rint(x / step) + dynamic_zero, 0, 255)
    # The 8-bit derivative of a GELU: turned about by a negative scale, a sigmoid looked up, a line added.
    turned = np.clip(np.rint(x / np.float32(-0.03)) + 120, 0, 255).astype(np.uint8)
    steps = turned.astype(np.float64) - 120
    sigmoid = np.clip(np.rint(255 / (1 + np.exp(-0.06 * steps))), 0, 255)
    line = np.clip(np.rint((sigmoid - 120) * 0.8 + steps * 0.3) + 128, 0, 255)
    ones = {"one": np.array(1 / 255, np.float32), "none": np.array(0, np.uint8)}
    adds = {"first": np.array(0.8, np.float32), "second": np.array(0.3, np.float32)}
    return [
        Case(
            "QuantizeLinear uint8, negative scale",
            "QuantizeLinear",
            {"x": x, "scale": -scale, "zero": zero},
            turned,
            EXACT,
            constants=("scale", "zero"),
            outputs=(UINT8,),
        ),
        Case(
            "QLinearSigmoid",
            "QLinearSigmoid",
            {"x": turned, "scale": np.array(0.06, np.float32), "zero": zero, **ones},
            sigmoid,
            BYTE,
            MICROSOFT,
            ("scale", "zero", *ones),
            outputs=(UINT8,),
        ),
        Case(
            "QLinearAdd",
            "QLinearAdd",
            {
                "a": sigmoid.astype(np.uint8),
                "first": adds["first"],
                "zero": zero,
                "b": turned,
                "second": adds["second"],
                "middle": zero,
                "unit": np.array(1, np.float32),
                "offset": np.array(128, np.uint8),
            },
            line,
            BYTE,
            MICROSOFT,
            (*adds, "zero", "middle", "unit", "offset"),
            outputs=(UINT8,),
        ),
        Case(
            "QLinearMul",
            "QLinearMul",
            {
                "a": turned,
                "unit": np.array(1, np.float32),
                "zero": zero,
                "b": codes,
                "second": adds["second"],
                "middle": zero,
                "out": np.array(30, np.float32),
                "offset": np.array(128, np.uint8),
            },
            np.clip(np.rint(steps * (codes.astype(np.float64) - 120) * 0.3 / 30) + 128, 0, 255),
            BYTE,
            MICROSOFT,
            ("unit", "zero", "second", "middle", "out", "offset"),
            outputs=(UINT8,),
        ),
        Case(
            "QuantizeLinear uint8",
            "QuantizeLinear",
            {"x": x, "scale": scale, "zero": zero},
            codes,
            EXACT,
            constants=("scale", "zero"),
            outputs=(UINT8,),
        ),
        Case(
            "DequantizeLinear uint8",
            "DequantizeLinear",
            {"x": codes, "scale": scale, "zero": zero},
            (codes.astype(np.float64) - 120) * float(scale),
            FP32,
            constants=("scale", "zero"),
        ),
        Case(
            "DynamicQuantizeLinear",
            "DynamicQuantizeLinear",
            {"x": x},
            dynamic,
            EXACT,
            outputs=(UINT8, FLOAT, UINT8),
        ),
    ]


def _quantized_weight(rng: np.random.Generator, extreme: bool) -> tuple[np.ndarray, np.ndarray]:
    """An int8 weight [INNER, COLUMNS] with a scale a column; extreme: every value is -127 or 127."""
    values = rng.integers(-127, 128, (INNER, COLUMNS))
    if extreme:
        values = np.where(values > 0, 127, -127)
    return values.astype(np.int8), rng.uniform(0.001, 0.01, COLUMNS).astype(np.float32)
