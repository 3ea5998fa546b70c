"""An ONNX model of one matrix product, written without the package onnx, which a device does not have.

The bytes are a ModelProto in Protocol Buffers' wire format (onnx.proto has the field numbers). What a bundle computes
comes from the workstation; this is for a machine that has no bundle yet.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FLOAT32", "INT8", "product_model"]

FLOAT32, INT8 = "float32", "int8"
IR_VERSION = 10
OPSET = 17
MICROSOFT = "com.microsoft"
# TensorProto.DataType.
_FLOAT, _INT8 = 1, 3
_INT = 2  # AttributeProto.AttributeType


def product_model(kind: str, rows: int, inner: int, columns: int) -> bytes:
    """Return the model of `out = left x right`: float32 by Gemm, int8 by DynamicQuantizeMatMul, as bundles do.

    Inputs are `left` [rows, inner] and `right`: for Gemm its transpose [columns, inner], as torch stores weights; for
    int8 [inner, columns], with a scale for each column as `scales`.
    """
    inputs = [_value("left", _FLOAT, (rows, inner))]
    if kind == FLOAT32:
        inputs.append(_value("right", _FLOAT, (columns, inner)))
        node = _node("Gemm", ("left", "right"), _text(5, _attribute("transB", 1)))
    else:
        inputs += [_value("right", _INT8, (inner, columns)), _value("scales", _FLOAT, (columns,))]
        node = _node("DynamicQuantizeMatMul", ("left", "right", "scales"), _text(7, MICROSOFT.encode()))
    graph = _text(1, node) + _text(2, b"product")
    graph += b"".join(_text(11, each) for each in inputs) + _text(12, _value("out", _FLOAT, (rows, columns)))
    opsets = [_text(1, domain.encode()) + _number(2, version) for domain, version in (("", OPSET), (MICROSOFT, 1))]
    return _number(1, IR_VERSION) + _text(7, graph) + b"".join(_text(8, each) for each in opsets)


def _node(operator: str, inputs: Sequence[str], rest: bytes) -> bytes:
    return b"".join(_text(1, name.encode()) for name in inputs) + _text(2, b"out") + _text(4, operator.encode()) + rest


def _attribute(name: str, value: int) -> bytes:
    return _text(1, name.encode()) + _number(3, value) + _number(20, _INT)


def _value(name: str, kind: int, dims: Sequence[int]) -> bytes:
    shape = b"".join(_text(1, _number(1, dim)) for dim in dims)
    return _text(1, name.encode()) + _text(2, _text(1, _number(1, kind) + _text(2, shape)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
