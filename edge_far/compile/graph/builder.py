"""Makes graph nodes with their shapes and types filled in; knows operators, not models.

Each method is one ONNX operator (standard domain unless said) and returns its output value. Nodes collect in
`nodes`, in execution order, for the caller to insert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.sizes import BATCH, SEQUENCE, Dim, dims_of

__all__ = ["INTERNAL", "MICROSOFT", "SWAP_HEADS", "Builder", "constant_of"]

MICROSOFT = "com.microsoft"
SWAP_HEADS = (0, 2, 1, 3)  # between [batch, sequence, heads, width] and [batch, heads, sequence, width]
INTERNAL = "edge_far"  # operators of ours that live between the gradient and the lowering pass


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """Return the array of a constant (initializer) value, or None for anything computed."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


class Builder:
    """Collects new nodes for one graph; `prefix` starts the names of their outputs."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self.nodes: list[ir.Node] = []

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        shape: Sequence[Dim],
        *,
        dtype: ir.DataType = ir.DataType.FLOAT,
        domain: str = "",
        **attributes: Any,
    ) -> ir.Value:
        """Append a node with one output and return that output."""
        return self.multi(op_type, inputs, [(shape, dtype)], domain=domain, **attributes)[0]

    def multi(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        outputs: Sequence[tuple[Sequence[Dim], ir.DataType]],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[ir.Value]:
        """Append a node with several outputs, given as (shape, element type)."""
        node = ir.node(
            op_type,
            list(inputs),
            attributes={key: value for key, value in attributes.items() if value is not None} or None,
            domain=domain,
            num_outputs=len(outputs),
        )
        number = _next_number(self.graph)
        node.name = f"{self.prefix}.{op_type}.{number}"
        for index, (value, (shape, dtype)) in enumerate(zip(node.outputs, outputs, strict=True)):
            value.name = f"{node.name}.{index}" if len(outputs) > 1 else node.name
            value.shape = ir.Shape(shape)
            value.dtype = dtype
        self.nodes.append(node)
        return list(node.outputs)

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        """Register an initializer; an equal one under the same name is reused."""
        known = self.graph.initializers.get(name)
        if known is not None:
            existing = constant_of(known)
            if existing is not None and existing.dtype == array.dtype and np.array_equal(existing, array):
                return known
            name = f"{name}.{_next_number(self.graph)}"
        tensor = ir.tensor(np.require(array, requirements="C"), name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.graph.initializers[name] = value
        return value

    def scalar(self, number: float) -> ir.Value:
        """Return a float32 scalar constant."""
        return self.constant(np.array(number, np.float32), f"scalar.{float(number)!r}")

    # --- elementwise -----------------------------------------------------------------------------------------

    def binary(self, op_type: str, left: ir.Value, right: ir.Value) -> ir.Value:
        """Append Add, Sub, Mul, Div, Max or Min with NumPy broadcasting."""
        return self.op(op_type, [left, right], _broadcast(dims_of(left), dims_of(right)), dtype=_dtype(left))

    def add(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return left + right."""
        return self.binary("Add", left, right)

    def sub(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return left - right."""
        return self.binary("Sub", left, right)

    def mul(self, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return left * right."""
        return self.binary("Mul", left, right)

    def unary(self, op_type: str, value: ir.Value, **attributes: Any) -> ir.Value:
        """Append an operator that keeps shape and type (Exp, Erf, Tanh, Neg, LogSoftmax ...)."""
        return self.op(op_type, [value], dims_of(value), dtype=_dtype(value), **attributes)

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Return the value converted to another element type."""
        return self.op("Cast", [value], dims_of(value), dtype=dtype, to=int(dtype))

    # --- shape -----------------------------------------------------------------------------------------------

    def reshape_to(self, value: ir.Value, shape: Sequence[Dim]) -> ir.Value:
        """Reshape to `shape`: at most one symbolic dimension, or [batch, sequence, integers ...]."""
        symbolic = [dim for dim in shape if not isinstance(dim, int)]
        if len(symbolic) > 1:
            if symbolic != [BATCH, SEQUENCE] or tuple(shape[:2]) != (BATCH, SEQUENCE):
                raise ValueError(f"cannot compute the shape {tuple(shape)}")
            rest = np.array(shape[2:], np.int64)
            parts = [self.input_shape(0, 2), self.constant(rest, "dims." + "x".join(map(str, rest)))]
            target_shape = self.op("Concat", parts, (len(shape),), dtype=ir.DataType.INT64, axis=0)
            return self.op("Reshape", [value, target_shape], shape, dtype=_dtype(value))
        target = np.array([dim if isinstance(dim, int) else -1 for dim in shape], np.int64)
        name = "shape." + "x".join(str(dim) for dim in target)
        return self.op("Reshape", [value, self.constant(target, name)], shape, dtype=_dtype(value))

    def reshape_keeping(self, value: ir.Value, kept: Sequence[Dim], rest: Sequence[int]) -> ir.Value:
        """Reshape to the value's own first dimensions, `kept`, and the integers `rest`."""
        target = (*([0] * len(kept)), *rest)  # a zero says: as in the input
        shape = self.constant(np.array(target, np.int64), "shape." + "x".join(map(str, target)))
        return self.op("Reshape", [value, shape], (*kept, *rest), dtype=_dtype(value))

    def split_heads(self, value: ir.Value, heads: int) -> ir.Value:
        """Return [B, S, A*d] as [B, S, A, d]."""
        batch, length, hidden = dims_of(value)
        assert isinstance(hidden, int)
        return self.reshape_keeping(value, (batch, length), (heads, hidden // heads))

    def by_heads(self, value: ir.Value, heads: int) -> ir.Value:
        """Return [B, S, A*d] as [B, A, S, d]."""
        return self.transpose(self.split_heads(value, heads), SWAP_HEADS)

    def input_shape(self, start: int, end: int) -> ir.Value:
        """Return dimensions start to end of input_ids ([batch, sequence]) as an int64 vector."""
        source = self.graph.inputs[0]
        return self.op("Shape", [source], (end - start,), dtype=ir.DataType.INT64, start=start, end=end)

    def transpose(self, value: ir.Value, perm: Sequence[int]) -> ir.Value:
        """Return the value with permuted dimensions."""
        dims = dims_of(value)
        return self.op("Transpose", [value], [dims[axis] for axis in perm], dtype=_dtype(value), perm=list(perm))

    # --- reductions ------------------------------------------------------------------------------------------

    def reduce(self, op_type: str, value: ir.Value, axis: int, *, keepdims: bool) -> ir.Value:
        """Append ReduceSum, ReduceMean, ReduceMax, ReduceMin or ReduceL2 over one axis."""
        dims = list(dims_of(value))
        axis %= len(dims)
        dims[axis : axis + 1] = [1] if keepdims else []
        axes = self.constant(np.array([axis], np.int64), f"axes.{axis}")
        return self.op(op_type, [value, axes], dims, dtype=_dtype(value), keepdims=int(keepdims))

    # --- matrix products -------------------------------------------------------------------------------------

    def gemm(
        self,
        left: ir.Value,
        right: ir.Value,
        bias: ir.Value | None = None,
        *,
        trans_left: bool = False,
        trans_right: bool = False,
    ) -> ir.Value:
        """Return op(left) @ op(right) + bias for matrices."""
        rows = dims_of(left)[1 if trans_left else 0]
        columns = dims_of(right)[0 if trans_right else 1]
        inputs = [left, right] if bias is None else [left, right, bias]
        return self.op("Gemm", inputs, (rows, columns), transA=int(trans_left), transB=int(trans_right))

    def matmul(
        self,
        left: ir.Value,
        right: ir.Value,
        *,
        trans_left: bool = False,
        trans_right: bool = False,
        alpha: float = 1.0,
    ) -> ir.Value:
        """Return alpha * op(left) @ op(right), batched (com.microsoft FusedMatMul: transposes are free)."""
        a, b = dims_of(left), dims_of(right)
        rows = a[-1] if trans_left else a[-2]
        columns = b[-2] if trans_right else b[-1]
        return self.op(
            "FusedMatMul",
            [left, right],
            (*a[:-2], rows, columns),
            domain=MICROSOFT,
            alpha=alpha,
            transA=int(trans_left),
            transB=int(trans_right),
        )


def _dtype(value: ir.Value) -> ir.DataType:
    return value.dtype if value.dtype is not None else ir.DataType.FLOAT


def _broadcast(left: Sequence[Dim], right: Sequence[Dim]) -> list[Dim]:
    rank = max(len(left), len(right))
    padded = [(1,) * (rank - len(dims)) + tuple(dims) for dims in (left, right)]
    result: list[Dim] = []
    for a, b in zip(*padded, strict=True):
        if a != b and a != 1 and b != 1:
            raise ValueError(f"shapes {tuple(left)} and {tuple(right)} do not broadcast")
        result.append(b if a == 1 else a)
    return result


def _next_number(graph: ir.Graph) -> int:
    number = graph.meta.get("edge_far.counter", 0)
    graph.meta["edge_far.counter"] = number + 1
    return number
