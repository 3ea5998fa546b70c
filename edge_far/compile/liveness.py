"""Predicts the memory of activations: how many bytes are alive at each node, as polynomials in batch and sequence.

Follows the runtime's rules: a value lives from its node to its last reader; reshapes share their input's buffer; an
elementwise operator writes over an input of the same size that dies with it. Inputs, outputs bound by the caller and
constants are not counted: the plan counts them by themselves.
"""

from __future__ import annotations

import onnx_ir as ir

from edge_far.compile.sizes import Size, dims_of, element_bytes

__all__ = ["activation_peaks"]

SHARES_BUFFER = {"Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten"}
WRITES_IN_PLACE = {"Add", "Sub", "Mul", "Div", "Exp", "Erf", "Neg", "Relu", "Tanh", "Softmax", "Where", "Gelu"}

# Shapes (batch, sequence) at which candidate peaks are compared; a node that is the peak at none of them is dropped.
_PROBES = [(b, s) for b in (1, 2, 4, 8, 16, 32, 64) for s in (8, 16, 32, 64, 128, 256, 512)]


def activation_peaks(graph: ir.Graph) -> list[Size]:
    """Return polynomials whose maximum at (batch, sequence) is the predicted peak in bytes."""
    order = list(graph)
    root = _buffer_roots(order)
    external = set(graph.inputs) | set(graph.outputs) | set(graph.initializers.values())
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(order):
        for value in node.inputs:
            if value is not None:
                last[root.get(value, value)] = index
    alive = Size({})
    held: set[ir.Value] = set()
    candidates: list[Size] = []
    for index, node in enumerate(order):
        dying = {
            owner
            for value in node.inputs
            if value is not None and (owner := root.get(value, value)) in held and last[owner] == index
        }
        for value in node.outputs:
            if value in external or root.get(value, value) is not value:
                continue
            reused = _reusable(node, value, dying)
            if reused is not None:
                dying.discard(reused)
                held.discard(reused)
            else:
                alive = alive + _bytes(value)
            held.add(value)
        candidates.append(alive)
        unread = {value for value in node.outputs if value in held and value not in last}
        for owner in dying | unread:
            alive = alive - _bytes(owner)
            held.discard(owner)
    return _undominated(candidates)


def _bytes(value: ir.Value) -> Size:
    return Size.of(dims_of(value), element_bytes(value))


def _buffer_roots(order: list[ir.Node]) -> dict[ir.Value, ir.Value]:
    """Map each reshaped value to the value whose buffer it shares."""
    root: dict[ir.Value, ir.Value] = {}
    for node in order:
        source = node.inputs[0] if node.inputs else None
        if node.op_type in SHARES_BUFFER and source is not None:
            root[node.outputs[0]] = root.get(source, source)
    return root


def _reusable(node: ir.Node, output: ir.Value, dying: set[ir.Value]) -> ir.Value | None:
    if node.op_type not in WRITES_IN_PLACE:
        return None
    wanted = _bytes(output).terms
    return next((value for value in dying if _bytes(value).terms == wanted), None)


def _undominated(candidates: list[Size]) -> list[Size]:
    """Keep the candidates that are the largest at some probed shape."""
    chosen: dict[tuple[tuple[tuple[int, int], float], ...], Size] = {}
    for batch, sequence in _PROBES:
        best = max(candidates, key=lambda size: size.at(batch, sequence))
        chosen[tuple(sorted(best.terms.items()))] = best
    return list(chosen.values())
