"""The cases of plain operators (arithmetic, comparisons, shapes), and of those that came with tasks and releases."""

from __future__ import annotations

import numpy as np

from tests.aarch64.case import BOOL, COLUMNS, EXACT, FLOAT, FP32, INNER, INT32, INT64, MICROSOFT, ROWS, UINT8, Case

__all__ = ["arithmetic", "integer_products", "rotations", "shapes"]


def arithmetic(rng: np.random.Generator) -> list[Case]:
    """Arithmetic of two inputs of different shapes, of one input, and comparisons."""
    x = rng.standard_normal((3, 11, 61), dtype=np.float32) * 2
    y = rng.standard_normal((11, 1), dtype=np.float32)
    y += np.sign(y)  # a divisor
    wide, other = x.astype(np.float64), y.astype(np.float64)
    of_two = {"Add": wide + other, "Sub": wide - other, "Mul": wide * other, "Div": wide / other}
    of_one = {"Abs": np.abs(wide), "Neg": -wide, "Relu": np.maximum(wide, 0), "Sin": np.sin(wide), "Cos": np.cos(wide)}
    reduced = {"ReduceMax": wide.max(-1), "ReduceMin": wide.min(-1)}
    classes = np.arange(5)
    labels = rng.integers(-1, 5, (3, 11, 1))  # -1 equals no class
    inner = 0.5 * wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    return [
        *(Case(name, name, {"x": x, "y": y}, expected, FP32) for name, expected in of_two.items()),
        *(Case(name, name, {"x": x}, expected, FP32) for name, expected in of_one.items()),
        *(
            Case(
                name, name, {"x": x, "axes": np.array([-1])}, expected, EXACT, "", ("axes",), (FLOAT,), {"keepdims": 0}
            )
            for name, expected in reduced.items()
        ),
        Case("Gelu by tanh", "Gelu", {"x": x}, inner, FP32, attributes={"approximate": "tanh"}),
        Case("Equal", "Equal", {"x": labels, "y": classes}, labels == classes, EXACT, outputs=(BOOL,)),
        Case("Greater", "Greater", {"x": x, "y": y}, x > y, EXACT, outputs=(BOOL,)),
        Case("Less", "Less", {"x": x, "y": y}, x < y, EXACT, outputs=(BOOL,)),
        Case("Where", "Where", {"known": x > 0, "x": x, "y": y}, np.where(x > 0, x, y), EXACT),
    ]


def shapes(rng: np.random.Generator) -> list[Case]:
    """What moves numbers and computes none."""
    x = rng.standard_normal((3, 8, 12), dtype=np.float32)
    tokens = rng.integers(0, 8, (3, 1))
    near = rng.integers(0, 12, (3, 8, 5))
    slices = {name: np.array([number]) for name, number in (("begin", 1), ("end", 12), ("axis", 2), ("step", 2))}
    padding = np.array([0, 0, 0, 0, 0, 3])
    shape, ones = np.array([3, 96]), np.array([1])
    ids, behind = rng.integers(0, 30522, (3, 8)), np.array([0, -1, 0, 1])  # what stands behind each token: MobileBERT
    return [
        Case("Concat", "Concat", {"x": x, "y": -x}, np.concatenate([x, -x], 1), EXACT, attributes={"axis": 1}),
        Case("ConstantOfShape", "ConstantOfShape", {"shape": shape}, np.zeros(shape), EXACT),
        Case("Expand", "Expand", {"x": x[:, :1], "shape": np.array(x.shape)}, x[:, :1] + np.zeros(x.shape), EXACT),
        Case("GatherElements", "GatherElements", {"x": x, "near": near}, np.take_along_axis(x, near, 2), EXACT, "", (),
             (FLOAT,), {"axis": 2}),
        Case("GatherND", "GatherND", {"x": x, "tokens": tokens}, x[np.arange(3), tokens[:, 0]], EXACT, "", (), (FLOAT,),
             {"batch_dims": 1}),
        Case("Pad", "Pad", {"x": x, "padding": padding}, np.pad(x, ((0, 0), (0, 0), (0, 3))), EXACT, "", ("padding",)),
        Case("Pad, cut at one end", "Pad", {"x": ids, "padding": behind}, np.pad(ids[:, 1:], ((0, 0), (0, 1))), EXACT,
             "", ("padding",), (INT64,)),
        Case("Range", "Range", {"first": np.array(2), "limit": np.array(40), "step": np.array(3)}, np.arange(2, 40, 3),
             EXACT, outputs=(INT64,)),
        Case("Reshape", "Reshape", {"x": x, "shape": shape}, x.reshape(3, 96), EXACT),
        Case("Shape", "Shape", {"x": x}, np.array(x.shape), EXACT, outputs=(INT64,)),
        Case("Slice", "Slice", {"x": x, **slices}, x[..., 1:12:2], EXACT, "", tuple(slices)),
        Case("Split in three", "Split", {"x": x}, x[..., :4], EXACT, "", (), (FLOAT,) * 3,
             {"axis": 2, "num_outputs": 3}),
        Case("Squeeze", "Squeeze", {"x": x[:, :1], "axes": ones}, x[:, 0], EXACT, "", ("axes",)),
        Case("Transpose", "Transpose", {"x": x}, x.transpose(0, 2, 1), EXACT, attributes={"perm": [0, 2, 1]}),
        Case("Unsqueeze", "Unsqueeze", {"x": x, "axes": ones}, x[:, None], EXACT, "", ("axes",)),
    ]  # fmt: skip


def rotations(rng: np.random.Generator) -> list[Case]:
    """Positions that turn pairs of numbers, as in ModernBERT."""
    batch, length, heads, half = 2, 9, 4, 8
    x = rng.standard_normal((batch, length, heads * 2 * half), dtype=np.float32)
    angles = rng.uniform(0, 6, (length, half))
    cosines, sines = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = np.split(x.astype(np.float64).reshape(batch, length, heads, 2 * half), 2, axis=-1)
    c, s = cosines[:, None].astype(np.float64), sines[:, None].astype(np.float64)
    turned = np.concatenate([first * c - second * s, first * s + second * c], axis=-1).reshape(x.shape)
    inputs = {"x": x, "position": np.array([0]), "cosines": cosines, "sines": sines}
    attributes: dict[str, object] = {"num_heads": heads}
    return [Case("RotaryEmbedding", "RotaryEmbedding", inputs, turned, FP32, MICROSOFT, attributes=attributes)]


def integer_products(rng: np.random.Generator) -> list[Case]:
    """The products of a release in 8 bits, exact in integers; cores without dot product have got the extremes wrong."""
    cases = []
    for label, extreme in (("", False), (", all weights +-127", True)):
        codes = rng.integers(0, 256, (ROWS, INNER)).astype(np.uint8)
        weight = rng.integers(-127, 128, (INNER, COLUMNS)).astype(np.int8)
        if extreme:
            codes = np.where(codes > 127, 255, 0).astype(np.uint8)
            weight = np.where(weight > 0, 127, -127).astype(np.int8)
        zero = np.array(117, np.uint8)
        product = (codes.astype(np.int64) - 117) @ weight.astype(np.int64)
        inputs = {"a": codes, "b": weight, "zero": zero}
        name = f"MatMulInteger{label}"
        cases.append(Case(name, "MatMulInteger", inputs, product, EXACT, constants=("b",), outputs=(INT32,)))
    table = rng.integers(-127, 128, (ROWS, INNER)).astype(np.int8)
    cases.append(Case("Cast int8 to float", "Cast", {"x": table}, table, EXACT, attributes={"to": FLOAT}))
    to_bytes = {"outputs": (UINT8,), "attributes": {"to": UINT8}}
    cases.append(Case("Cast bool to uint8", "Cast", {"x": table > 0}, table > 0, EXACT, **to_bytes))
    return cases
