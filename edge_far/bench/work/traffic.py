"""Counts the memory operations of a training step, as the paper does: bytes that operators read and write.

1. Every operator of the step graph counts its inputs and its outputs once, from their symbolic shapes.
2. Operators that change a shape and move nothing count nothing; those that select read as much as they write.
3. A step is the graph once a micro-batch, and the optimiser: the gradient norm reads the gradients, the update reads
   parameter, gradient and state and writes all but the gradient, which is then cleared.

Caches are not modelled: this counts what operators ask for, not what reaches the memory chips.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edge_far.compile.emit.costs import MOVES_NOTHING, operator_bytes
from edge_far.compile.graph.sizes import Size

__all__ = ["UPDATE_BYTES", "file_bytes", "graph_bytes", "step_bytes"]

# Of each trained float32, without the state: norm 1 read; update 2 reads, 1 write; clearing 1 write.
UPDATE_BYTES = 4 * (1 + 2 + 1 + 1)


def step_bytes(graph: Path, trained: int, state: int, batch: int, micro_batch: int, length: int) -> float:
    """Return the bytes that one optimiser step moves: the step graph in a file, and the optimiser's part.

    That is an update of `trained` numbers with `state` bytes of optimiser state.
    """
    size = graph_bytes(ir.load(graph).graph)
    full, rest = divmod(batch, micro_batch)
    total = full * size.at(micro_batch, length) + (size.at(rest, length) if rest else 0.0)
    return total + UPDATE_BYTES * trained + 2 * state


def file_bytes(graph: Path, rows: int, length: int) -> float:
    """Return the bytes that one run of the graph in a file moves."""
    return graph_bytes(ir.load(graph).graph).at(rows, length)


def graph_bytes(graph: ir.Graph) -> Size:
    """Return the bytes that one run of a graph moves, in batch and sequence; ValueError where a shape is unknown."""
    total = Size({})
    for node in graph:
        if node.domain == "" and node.op_type in MOVES_NOTHING:
            continue
        total = total + operator_bytes(node)
    return total
