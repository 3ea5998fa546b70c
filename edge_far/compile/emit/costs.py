"""Counts what a graph asks of a machine: its operators by kernel, their work as polynomials in batch and sequence.

1. Operators that share type, integer attributes, element types and kinds of shapes are one *kernel*: a machine runs
   them at one speed. `Mul(Tn,T1)` multiplies [tokens, width] by [tokens, 1].
2. Work is floating-point operations for products, and bytes read and written for all others.
3. Size is what the speed depends on: the rows of a product (tokens, or positions where attention multiplies), the
   bytes of any other operator, which decide the cache it runs in.
4. Operators without work that grows (a [width] vector, a reshape) count by number alone, as the kernel `node`.

The device multiplies work by the seconds that its own probe measured (compile/emit/probe.py,
device/planning/machine_speed.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from edge_far.bundles.manifest import ATTENTION, OperatorCost, Polynomial, is_product
from edge_far.compile.graph.builder import constant_of
from edge_far.compile.graph.sizes import BATCH, SEQUENCE, TOKENS, Dim, Size, dims_of, element_bytes

__all__ = ["MOVES_NOTHING", "NODE", "NodeCost", "graph_costs", "node_cost", "operator_bytes", "polynomial"]

NODE = "node"
MOVES_NOTHING = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Shape", "Size"}
SELECTS = {"Gather", "GatherElements", "GatherND", "Slice"}
_LETTERS = {BATCH: "b", SEQUENCE: "s", TOKENS: "T"}
# Constants this short say what an operator does (axes, scalars); longer ones are data.
_LONGEST_SETTING = 8


@dataclass(frozen=True)
class NodeCost:
    """What one operator is and costs; `work` is None where it counts by number alone."""

    kernel: str
    work: Size | None
    size: Size | None


def graph_costs(graph: ir.Graph) -> tuple[OperatorCost, ...]:
    """Return the costs of one run of a graph, alike operators together; ValueError where a shape is unknown."""
    counts = Counter((cost.kernel, polynomial(cost.work), polynomial(cost.size)) for cost in map(node_cost, graph))
    return tuple(OperatorCost(*key, count) for key, count in sorted(counts.items()))


def polynomial(size: Size | None) -> Polynomial:
    """Return a polynomial as the manifest holds it; none of them is the empty one."""
    return () if size is None else tuple((b, s, factor) for b, s, factor in size.to_json())


def node_cost(node: ir.Node) -> NodeCost:
    """Return the cost of one operator."""
    if node.domain == "" and node.op_type in MOVES_NOTHING:
        return NodeCost(NODE, None, None)
    rows: Size | None = None
    if node.op_type in ATTENTION:
        work, rows = _attention(node)
    elif is_product(node.op_type):
        work, rows = _product(node)
    else:
        work = operator_bytes(node)
    if not any(b or s for b, s in work.terms):
        return NodeCost(NODE, None, None)
    return NodeCost(_kernel(node), work, work if rows is None else rows)


def _product(node: ir.Node) -> tuple[Size, Size]:
    """Return 2 x rows x inner x columns over all matrices, and what of rows, inner and columns grows."""
    left = node.inputs[0]
    assert left is not None
    dims, out = dims_of(left), dims_of(node.outputs[0])
    inner = dims[-2] if _flag(node, "transA") else dims[-1]
    grows = [dim for dim in (*out[-2:], inner) if not isinstance(dim, int)]
    return Size.of((*out, inner), 2.0), Size.of(grows[:1])


def _attention(node: ir.Node) -> tuple[Size, Size]:
    """Two products of every position with every other: [batch, positions, hidden] by [batch, positions, hidden]."""
    query, key = node.inputs[0], node.inputs[1]
    assert query is not None and key is not None
    dims, positions = dims_of(query), dims_of(key)[1]
    return Size.of((*dims, positions), 4.0), Size.of((positions,))


def operator_bytes(node: ir.Node) -> Size:
    """Return the bytes that an operator reads and writes; one that selects reads as much as it writes."""
    inputs = list(node.inputs)
    outputs = [value for value in node.outputs if value.name]
    if node.domain == "" and node.op_type in SELECTS:
        inputs[0] = outputs[0]
    total = Size({})
    for value in (*inputs, *outputs):
        if value is not None:
            total = total + Size.of(dims_of(value), element_bytes(value))
    return total


def _kernel(node: ir.Node) -> str:
    attributes = ",".join(
        f"{name}={attribute.value}"
        for name, attribute in sorted(node.attributes.items())
        if attribute.type in (ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.STRING)
    )
    inputs = ",".join("-" if value is None else _kind(value) for value in node.inputs)
    return f"{node.op_type}{f'[{attributes}]' if attributes else ''}({inputs})"


def _kind(value: ir.Value) -> str:
    """Return element type (left out for float32) and a letter a dimension; of a short constant its integers."""
    array = constant_of(value)
    if array is not None and array.size <= _LONGEST_SETTING and array.dtype.kind in "iu":
        return "{" + " ".join(str(number) for number in array.ravel()) + "}"
    assert value.dtype is not None
    dtype = "" if value.dtype == ir.DataType.FLOAT else f"{value.dtype.name.lower()}:"
    return dtype + "".join(_letters(dims_of(value)))


def _letters(dims: Iterable[Dim]) -> Iterable[str]:
    for dim in dims:
        if isinstance(dim, int):
            yield "1" if dim == 1 else "n"
        else:
            yield _LETTERS.get(dim, f"<{dim}>")


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].as_int())
