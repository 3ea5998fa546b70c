"""Sorts the nodes of each frozen branch by the largest value that they were seen to take, largest first.

A sum over nodes does not depend on their order; columns of the first matrix and of its bias and rows of the second are
moved alike, at export. Then the few nodes that can be large lie together, and balance_activations.py finds a token's
largest value by reading these alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from edge_far.compile.graph.activations import one_sided
from edge_far.compile.graph.builder import constant_of
from edge_far.compile.graph.edits import only_user, produced_by
from edge_far.compile.graph.notes import PassNote

__all__ = ["sort_nodes"]


def sort_nodes(model: ir.Model, largest: Mapping[str, np.ndarray]) -> tuple[PassNote, dict[str, np.ndarray]]:
    """Sort every frozen branch gelu(x @ w1 + c) @ w2, or silu, of which `largest` tells.

    That is, by the name of the constant w2 [in, out], the largest magnitudes [in] that its product was seen to read.
    Returns those of the sorted branches, sorted too.
    """
    note = PassNote("sort_nodes")
    found: dict[str, np.ndarray] = {}
    for second in [node for node in model.graph if node.op_type == "Gemm"]:
        constants = _branch(second)
        if constants is None:
            continue
        seen = largest.get(str(constants[-1].name))
        if seen is None:
            continue
        order = np.argsort(-seen, kind="stable")
        for value, axis in zip(constants, (1, 0, 0), strict=True):
            value.const_value = ir.tensor(np.take(_array(value), order, axis), name=value.name)
        found[str(constants[-1].name)] = seen[order]
        note.changed("frozen branches sorted")
    return note, found


def _branch(second: ir.Node) -> list[ir.Value] | None:
    """Return the constants w1 [in, nodes], c [nodes] and w2 [nodes, out] of a branch that nothing else reads."""
    active = one_sided(second.inputs[0])
    first = produced_by(active.inputs[0], "Gemm") if active is not None else None
    if first is None or len(first.inputs) < 3:
        return None
    constants = [value for value in (first.inputs[1], first.inputs[2], second.inputs[1]) if value is not None]
    if len(constants) < 3 or any(constant_of(value) is None or only_user(value) is None for value in constants):
        return None
    return constants


def _array(value: ir.Value) -> np.ndarray:
    array = constant_of(value)
    assert array is not None
    return array
