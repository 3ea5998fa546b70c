"""Evens out what a frozen forward product reads, before it is quantised.

1. Behind a LayerNormalization some channels are many times larger than others, by their gamma and beta. The channels
   are divided by 3 |gamma| + |beta| (about the largest magnitude a normalised channel takes), as these were at export,
   and the frozen matrix' rows multiplied by it: exact in real numbers, for any gamma and beta. Where the
   LayerNormalization is in the prefix, by what largest_inputs.py has seen.
2. A few channels now and then take many times that, and the scale would be theirs. To divide them by more would only
   move the trouble: their rows of the matrix would be the largest of every column. So they are read several times: a
   channel of k copies is divided by k, each copy has its row of the matrix, and the sum is the same (exact, outlier
   channel splitting: Zhao et al., arXiv 1901.09504). largest_inputs.py has seen which they are; COPIED_SHARE of the
   channels is added. Where none exceeds its size by so much, the largest seen is its size.
3. Behind a GELU or SiLU it is rows (tokens) that differ: each is divided by its own largest value, and the product's
   row multiplied by it. These are never far below zero, so a largest value of at least ONE_SIDED's (1.2 for a GELU)
   keeps what is negative within a seventh of it, which is the range that quantize.py leaves below zero.
4. Rows are large by a few nodes. Where largest_inputs.py has seen which, and sort_nodes.py put them first, the largest
   value of a row is looked for in the first SEARCHED_SHARE of the nodes, instead of reading all of the GELU's output
   once more. It is at least UNSEARCHED_MARGIN times the largest that any other node was seen to take; what exceeds
   even that is clipped.
5. One or two nodes take many times what any other does, most of all at the first token, which is much the same in all
   texts: the rest of its row would be rounded alike in all of them. Such a node is left to fp32, as a product of a few
   columns; neither the 8-bit matrix nor the size of a row knows it. At most MOST_MASSIVE are.
6. What was divided by channels is quantised with one scale a tensor, which makes a text's numbers depend on the others
   of its batch. Where they must not (`by_rows`: a prefix, whose results are kept), rows are divided by their sizes too.

On real weights this is the difference between a worst learner gradient's cosine of 0.95 and 0.99
(docs/lab/performance.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.activations import ONE_SIDED, one_sided
from edge_far.compile.graph.builder import Builder, constant_of
from edge_far.compile.graph.edits import insert_before
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import dims_of
from edge_far.compile.precision.scale_gradient_rows import SMALLEST_ROW, multiply_users

__all__ = ["balance_activations", "copied_channels", "repeat_columns", "row_sizes"]

# The share of a branch's nodes that the largest value of a row is looked for among.
SEARCHED_SHARE = 0.05
UNSEARCHED_MARGIN = 1.2
# A node is left to fp32 where it was seen to be so many times the least size of a row.
MASSIVE, MOST_MASSIVE = 2.0, 4

# So many copies are added, as a share of the channels: 12 of 384. None where no channel was seen to exceed its size by
# more than WORTH_COPYING.
COPIED_SHARE = 1 / 32
WORTH_COPYING = 1.5

# A normalised channel has mean 0 and deviation 1 over the features of a token: 3 deviations cover nearly all of it.
CHANNEL_DEVIATIONS = 3.0


def balance_activations(
    model: ir.Model,
    parameters: Mapping[str, np.ndarray],
    largest: Mapping[str, np.ndarray],
    *,
    by_rows: bool = False,
) -> PassNote:
    """Apply the rules to every frozen forward product; `by_rows` makes no number depend on another row.

    `parameters` holds all parameters by name; `largest`, by the name of a constant [in, out], the largest magnitudes
    [in] that its product was seen to read, in descending order.
    """
    note = PassNote("balance_activations")
    graph = model.graph
    even: dict[tuple[ir.Value, bytes, bytes], tuple[ir.Value, ir.Value | None]] = {}
    for node in [node for node in graph if _is_forward_product(node)]:
        seen = largest.get(str(node.inputs[1].name)) if node.inputs[1] is not None else None
        sizes = _channel_sizes(node.inputs[0], parameters, seen)
        if sizes is not None:
            copied = _balance_channels(graph, node, sizes, seen, even, by_rows)
            note.changed("products balanced by channels" + (", a few of them copied" if copied else ""))
        else:
            searched = _balance_rows(graph, node, seen, by_rows)
            note.changed("products balanced by rows" + (", by their few largest nodes" if searched else ""))
    return note


def _is_forward_product(node: ir.Node) -> bool:
    frozen = node.op_type == "Gemm" and constant_of(node.inputs[1]) is not None
    return frozen and not node.attributes["transB"].as_int()


def _channel_sizes(
    source: ir.Value | None, parameters: Mapping[str, np.ndarray], seen: np.ndarray | None
) -> np.ndarray | None:
    """Return about the largest magnitude of each channel, float32 [in], or None where rows are what differs."""
    norm = _behind_shapes(source)
    if norm is None:  # an input: hidden states, which the prefix' last LayerNormalization made
        return None if seen is None else _without_zeros(seen)
    if norm.op_type != "LayerNormalization":
        return None
    gamma, beta = (_value_of(value, parameters) for value in norm.inputs[1:3])
    return _without_zeros(np.abs(beta) + CHANNEL_DEVIATIONS * np.abs(gamma))


def _behind_shapes(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes a value's channels: changed shapes and chosen tokens leave them as they are."""
    node = value.producer() if value is not None else None
    while (node is not None and node.op_type == "FirstToken") or _flattens(node):
        assert node is not None and node.inputs[0] is not None
        node = node.inputs[0].producer()
    return node


def _flattens(node: ir.Node | None) -> bool:
    if node is None or node.op_type != "Reshape" or node.inputs[0] is None:
        return False
    return dims_of(node.inputs[0])[-1] == dims_of(node.outputs[0])[-1]


def _without_zeros(sizes: np.ndarray) -> np.ndarray:
    positive: np.ndarray = np.maximum(sizes, sizes.mean() * 1e-3).astype(np.float32)
    return positive


def _balance_channels(
    graph: ir.Graph,
    node: ir.Node,
    sizes: np.ndarray,
    seen: np.ndarray | None,
    known: dict[tuple[ir.Value, bytes, bytes], tuple[ir.Value, ir.Value | None]],
    by_rows: bool,
) -> bool:
    """Divide the channels by their sizes, and copy some; products that read the same by the same read one quotient.

    `known` holds what they read, and the sizes of its rows where it was divided by these besides. Returns whether any
    were copied.
    """
    source, weight = node.inputs[:2]
    matrix = constant_of(weight)
    assert source is not None and weight is not None and matrix is not None
    copied = copied_channels(sizes, seen)
    if seen is not None and not len(copied):
        sizes = np.maximum(sizes, seen)
    order = np.concatenate([np.arange(len(sizes)), copied])
    b = Builder(graph, "balance")
    key = (source, sizes.tobytes(), copied.tobytes())
    if key not in known:
        factors = 1.0 / (sizes * np.bincount(order)).astype(np.float32)
        even = b.mul(source, b.constant(factors, f"{weight.name}.channels"))
        rows = row_sizes(even, b) if by_rows else None
        even = even if rows is None else b.binary("Div", even, rows)
        if len(copied):
            even = repeat_columns(even, b.constant(copied, f"{weight.name}.copied"), b)
        known[key] = even, rows
    balanced = b.constant((matrix * sizes[:, None])[order], f"{weight.name}.balanced")
    insert_before(graph, node, b.nodes)
    even, rows = known[key]
    node.replace_input_with(0, even)
    node.replace_input_with(1, balanced)
    if rows is not None:
        multiply_users(graph, node, rows, _take_bias(node))
    return len(copied) > 0


def _take_bias(node: ir.Node) -> ir.Value | None:
    """Return a product's bias, which is no longer the product's own."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        node.resize_inputs(2)
    return bias


def copied_channels(sizes: np.ndarray, seen: np.ndarray | None) -> np.ndarray:
    """Return which channels to add again, int64, ascending, a channel once a copy: always those that exceed most.

    `sizes` and `seen` are float32 [channels], what they are divided by and the largest magnitudes seen.
    """
    found: list[int] = []
    excess = np.zeros(1) if seen is None else (seen / sizes).astype(np.float64)
    if excess.max() > WORTH_COPYING:
        copies = np.ones(len(excess))
        for _ in range(math.ceil(COPIED_SHARE * len(excess))):
            found.append(int(np.argmax(excess / copies)))
            copies[found[-1]] += 1
    return np.array(sorted(found), np.int64)


def repeat_columns(value: ir.Value, which: ir.Value, b: Builder, dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """Return a value [rows, width] with the columns `which`, int64 [count], once more behind the others."""
    (rows, width), (count,) = dims_of(value), dims_of(which)
    again = b.op("Gather", [value, which], (rows, count), dtype=dtype, axis=1)
    return b.op("Concat", [value, again], (rows, int(width) + int(count)), dtype=dtype, axis=1)


def _balance_rows(graph: ir.Graph, node: ir.Node, seen: np.ndarray | None, by_rows: bool) -> bool:
    """Divide the rows by their sizes; return whether these were looked for among a few nodes."""
    source = node.inputs[0]
    assert source is not None
    b = Builder(graph, "balance")
    active = one_sided(source)
    searched = _Searched.of(seen, ONE_SIDED[active.op_type]) if active is not None and seen is not None else None
    add_massive = _take_massive(node, searched, by_rows, b) if searched is not None and searched.first else None
    if active is None:
        sizes = row_sizes(source, b)
    else:
        sizes = _one_sided_row_sizes(source, ONE_SIDED[active.op_type], searched, b)
    even = b.binary("Div", source, sizes)
    insert_before(graph, node, b.nodes)
    node.replace_input_with(0, even)
    multiply_users(graph, node, sizes, _take_bias(node), add_massive)
    return searched is not None


@dataclass(frozen=True)
class _Searched:
    """The nodes [first, end) among which a row's size is looked for, where they are sorted, and the least it can be.

    Those before `first` are massive.
    """

    first: int
    end: int
    least: float

    @classmethod
    def of(cls, seen: np.ndarray, least: float) -> _Searched:
        """Choose by the largest magnitudes seen, in descending order, and the function's own least size."""
        end = math.ceil(SEARCHED_SHARE * len(seen))
        least = max(least, UNSEARCHED_MARGIN * float(seen[min(end, len(seen) - 1)]))
        massive = int(np.count_nonzero(seen > MASSIVE * least))
        return cls(min(massive, MOST_MASSIVE, end - 1), end, least)


def _take_massive(
    node: ir.Node, searched: _Searched, by_rows: bool, b: Builder
) -> Callable[[ir.Value, Builder], ir.Value]:
    """Take the massive nodes out of a product; return what adds theirs, of their columns and their rows of the matrix.

    With `by_rows` these are multiplied node by node: a Gemm of one row may round otherwise than one of several.
    """
    source, weight = node.inputs[:2]
    matrix = constant_of(weight)
    assert source is not None and weight is not None and matrix is not None
    rest = matrix.copy()
    rest[: searched.first] = 0
    node.replace_input_with(1, b.constant(rest, f"{weight.name}.rest"))
    name, massive = f"{weight.name}.massive", matrix[: searched.first]
    if not by_rows:
        columns, rows = _columns(source, 0, searched.first, b), b.constant(massive, name)
        return lambda total, b: b.gemm(columns, rows, total)
    each = [(_columns(source, i, i + 1, b), b.constant(row[None], f"{name}.{i}")) for i, row in enumerate(massive)]

    def add(total: ir.Value, b: Builder) -> ir.Value:
        for column, row in each:
            total = b.add(total, b.op("Mul", [column, row], dims_of(total)))
        return total

    return add


def _columns(value: ir.Value, start: int, end: int, b: Builder) -> ir.Value:
    bounds = [b.constant(np.array([bound], np.int64), f"nodes.{bound}") for bound in (start, end)]
    last_axis = b.constant(np.array([-1], np.int64), "last_axis")
    return b.op("Slice", [value, *bounds, last_axis], (dims_of(value)[0], end - start))


def _one_sided_row_sizes(value: ir.Value, least: float, searched: _Searched | None, b: Builder) -> ir.Value:
    if searched is not None:
        least, value = searched.least, _columns(value, searched.first, searched.end, b)
    highest = b.reduce("ReduceMax", value, -1, keepdims=True)
    return b.op("Max", [highest, b.scalar(least)], dims_of(highest))


def row_sizes(value: ir.Value, b: Builder) -> ir.Value:
    """Return the largest magnitude of each row, [rows, 1], at least SMALLEST_ROW."""
    highest = b.reduce("ReduceMax", value, -1, keepdims=True)
    lowest = b.reduce("ReduceMin", value, -1, keepdims=True)
    return b.op("Max", [highest, b.unary("Neg", lowest), b.scalar(SMALLEST_ROW)], dims_of(highest))


def _value_of(value: ir.Value | None, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    constant = constant_of(value)
    if constant is not None:
        return constant
    assert value is not None
    return parameters[str(value.name)]
