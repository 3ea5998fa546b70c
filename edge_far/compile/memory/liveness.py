"""Predicts the memory of activations: how many bytes are held at each node, as polynomials in batch and sequence.

1. Reshapes share their input's buffer; every other value has one of its own, from the node that makes it to its last
   reader: sessions run with ONNX Runtime's reuse of buffers switched off (device/engine/session.py), which would hold
   them in between, when they hold nothing.
2. Some kernels take memory of their own while they run (measured: `benchmarks/kernel_scratch.py`).

Inputs, outputs bound by the caller and constants are not counted: the plan counts them by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edge_far.compile.graph.sizes import Size, dims_of, element_bytes

__all__ = ["Buffer", "activation_peaks", "buffer_roots", "buffers", "scratch"]

SHARES_BUFFER = {"Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"}

# Shapes (batch, sequence) at which candidate peaks are compared; a node that is the peak at none of them is dropped.
_PROBES = [(b, s) for b in (1, 2, 4, 8, 16, 32, 64) for s in (8, 16, 32, 64, 128, 256, 512)]


@dataclass(frozen=True)
class Buffer:
    """What one value takes, from the place of the node that makes it to that of its last reader."""

    size: Size
    first: int
    last: int


def activation_peaks(graph: ir.Graph) -> list[Size]:
    """Return polynomials whose maximum at (batch, sequence) is the predicted peak in bytes."""
    change = [Size({}) for _ in range(graph.num_nodes() + 1)]
    for buffer in buffers(graph):
        change[buffer.first] = change[buffer.first] + buffer.size
        change[buffer.last + 1] = change[buffer.last + 1] - buffer.size
    held = Size({})
    candidates: list[Size] = []
    for node, difference in zip(graph, change, strict=False):
        held = held + difference
        candidates.append(sum(scratch(node), held))
    return _undominated(candidates)


def buffers(graph: ir.Graph) -> list[Buffer]:
    """Return the buffers of a graph, which runs in the order of its file, by the places of the nodes that make them."""
    order = list(graph)
    root = buffer_roots(order)
    external = set(graph.inputs) | set(graph.outputs) | set(graph.initializers.values())
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(order):
        for value in (*node.outputs, *node.inputs):
            if value is not None:
                last[root.get(value, value)] = index
    return [
        Buffer(_bytes(value), index, last[value])
        for index, node in enumerate(order)
        for value in node.outputs
        if value.name and value not in external and value not in root
    ]


def scratch(node: ir.Node) -> list[Size]:
    """Return the buffers that a node's kernel takes besides its inputs and outputs."""
    if node.op_type == "BiasGelu":  # its argument to the error function
        return [_bytes(node.outputs[0])]
    if node.op_type == "DynamicQuantizeMatMul":  # its left operand in 8 bits
        left = node.inputs[0]
        assert left is not None
        return [Size.of(dims_of(left), 1)]
    if node.op_type == "QLinearMatMul":  # its product in 32 bits
        return [Size.of(dims_of(node.outputs[0]), 4)]
    if node.op_type == "Attention":  # its weights, also where they are an output
        query, _, _, mask = node.inputs[:4]
        assert query is not None and mask is not None
        batch, length = dims_of(query)[:2]
        heads = node.attributes["q_num_heads"].as_int()
        weights = Size.of((batch, heads, length, dims_of(mask)[-1]), element_bytes(query))
        return [weights]
    return []


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
