"""Predicts the memory of activations: how many bytes are held at each node, as polynomials in batch and sequence.

Follows the allocation planner of ONNX Runtime (measured against it in docs/performance.md):

1. Reshapes share their input's buffer; an elementwise operator writes over an input of its shape that dies with it.
2. Any other output takes the buffer that was freed last among those of exactly its shape and type. A buffer is
   therefore held from its first value to its last, also in between, when it holds nothing.
3. A buffer is returned to the heap after its last value's last reader.
4. Some kernels take memory of their own while they run (measured: `benchmarks/kernel_scratch.py`).

Inputs, outputs bound by the caller and constants are not counted: the plan counts them by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edge_far.compile.sizes import Size, dims_of, element_bytes

__all__ = ["activation_peaks", "buffer_roots"]

SHARES_BUFFER = {"Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"}
WRITES_IN_PLACE = {"Add", "Sub", "Mul", "Div"}

# Shapes (batch, sequence) at which candidate peaks are compared; a node that is the peak at none of them is dropped.
_PROBES = [(b, s) for b in (1, 2, 4, 8, 16, 32, 64) for s in (8, 16, 32, 64, 128, 256, 512)]


@dataclass
class _Buffer:
    """One allocation: `first` and `last` are the nodes between which it is held."""

    key: tuple[object, ...]
    size: Size
    first: int
    last: int


def activation_peaks(graph: ir.Graph) -> list[Size]:
    """Return polynomials whose maximum at (batch, sequence) is the predicted peak in bytes."""
    order = list(graph)
    buffers = _assign_buffers(graph, order)
    starts: dict[int, list[_Buffer]] = {}
    ends: dict[int, list[_Buffer]] = {}
    for buffer in buffers:
        starts.setdefault(buffer.first, []).append(buffer)
        ends.setdefault(buffer.last, []).append(buffer)
    held = Size({})
    candidates: list[Size] = []
    for index in range(len(order)):
        for buffer in starts.get(index, ()):
            held = held + buffer.size
        candidates.append(held + _scratch(order[index]))
        for buffer in ends.get(index, ()):
            held = held - buffer.size
    return _undominated(candidates)


def _assign_buffers(graph: ir.Graph, order: list[ir.Node]) -> list[_Buffer]:
    """Give every computed value a buffer, by the rules above."""
    root = buffer_roots(order)
    external = set(graph.inputs) | set(graph.outputs) | set(graph.initializers.values())
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(order):
        for value in node.inputs:
            if value is not None:
                last[root.get(value, value)] = index
    buffers: list[_Buffer] = []
    owner: dict[ir.Value, _Buffer] = {}
    free: list[_Buffer] = []
    for index, node in enumerate(order):
        dying = _dying(node, index, root, last, owner)
        for value in node.outputs:
            if not value.name or value in external or root.get(value, value) is not value:
                continue
            end = last.get(value, index)
            key = (value.dtype, *dims_of(value))
            buffer = _overwritten(node, key, dying, owner) or _freed(key, free)
            if buffer is None:
                buffer = _Buffer(key, _bytes(value), index, end)
                buffers.append(buffer)
            buffer.last = max(buffer.last, end)
            owner[value] = buffer
            if end == index:
                free.append(buffer)
        free.extend(owner[value] for value in dying)
    return buffers


def _dying(
    node: ir.Node,
    index: int,
    root: dict[ir.Value, ir.Value],
    last: dict[ir.Value, int],
    owner: dict[ir.Value, _Buffer],
) -> list[ir.Value]:
    """Return the values whose last reader is this node, once each."""
    values = [root.get(value, value) for value in node.inputs if value is not None]
    return [value for value in dict.fromkeys(values) if value in owner and last[value] == index]


def _overwritten(
    node: ir.Node, key: tuple[object, ...], dying: list[ir.Value], owner: dict[ir.Value, _Buffer]
) -> _Buffer | None:
    if node.op_type not in WRITES_IN_PLACE:
        return None
    for value in dying:
        if owner[value].key == key:
            dying.remove(value)
            return owner[value]
    return None


def _freed(key: tuple[object, ...], free: list[_Buffer]) -> _Buffer | None:
    for position in range(len(free) - 1, -1, -1):
        if free[position].key == key:
            return free.pop(position)
    return None


def _scratch(node: ir.Node) -> Size:
    """Return the bytes that a node's kernel takes besides its inputs and outputs."""
    if node.op_type == "BiasGelu":  # its argument to the error function
        return _bytes(node.outputs[0])
    if node.op_type == "DynamicQuantizeMatMul":  # its left operand in 8 bits
        left = node.inputs[0]
        assert left is not None
        return Size.of(dims_of(left), 1)
    if node.op_type == "Attention":  # the weights, also where they are an output
        query, mask = node.inputs[0], node.inputs[3]
        assert query is not None and mask is not None
        batch, length = dims_of(query)[:2]
        heads = node.attributes["q_num_heads"].as_int()
        return Size.of((batch, heads, length, dims_of(mask)[-1]), element_bytes(query))
    return Size({})


def _bytes(value: ir.Value) -> Size:
    return Size.of(dims_of(value), element_bytes(value))


def buffer_roots(order: list[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Map each reshaped value to the value whose buffer it shares."""
    root: dict[ir.Value, ir.Value] = {}
    for node in order:
        source = node.inputs[0] if node.inputs else None
        if node.op_type in SHARES_BUFFER and source is not None:
            root[node.outputs[0]] = root.get(source, source)
    return root


def _undominated(candidates: list[Size]) -> list[Size]:
    """Keep the candidates that are the largest at some probed shape."""
    chosen: dict[tuple[tuple[tuple[int, int], float], ...], Size] = {}
    for batch, sequence in _PROBES:
        best = max(candidates, key=lambda size: size.at(batch, sequence))
        chosen[tuple(sorted(best.terms.items()))] = best
    return list(chosen.values())
