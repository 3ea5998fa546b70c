"""Counts the memory operations of a training step, as the paper does: bytes that operators read and write.

1. Every operator of the step graph counts its inputs and its outputs once, from their symbolic shapes.
2. Operators that change a shape and move nothing count nothing; those that select read as much as they write.
3. A step is the graph once a micro-batch, and the optimiser: the gradient norm reads the gradients, AdamW reads
   parameter, gradient and both moments and writes all but the gradient, which is then cleared.

Caches are not modelled: this counts what operators ask for, not what reaches the memory chips.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edge_far.compile.sizes import Size, dims_of, element_bytes

__all__ = ["OPTIMIZER_BYTES", "graph_bytes", "step_bytes"]

MOVES_NOTHING = {"Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Shape", "Size"}
SELECTS = {"Gather", "GatherElements", "GatherND", "Slice"}
# Of each trained float32: norm 1 read; AdamW 4 reads, 3 writes; clearing 1 write.
OPTIMIZER_BYTES = 4 * (1 + 4 + 3 + 1)


def step_bytes(graph: Path, trained: int, batch: int, micro_batch: int, length: int) -> float:
    """Return the bytes that one optimiser step moves: the step graph in a file, and AdamW on `trained` numbers."""
    size = graph_bytes(ir.load(graph).graph)
    full, rest = divmod(batch, micro_batch)
    total = full * size.at(micro_batch, length) + (size.at(rest, length) if rest else 0.0)
    return total + OPTIMIZER_BYTES * trained


def graph_bytes(graph: ir.Graph) -> Size:
    """Return the bytes that one run of a graph moves, in batch and sequence; ValueError where a shape is unknown."""
    total = Size({})
    for node in graph:
        if node.domain == "" and node.op_type in MOVES_NOTHING:
            continue
        inputs = list(node.inputs)
        outputs = [value for value in node.outputs if value.name]
        if node.domain == "" and node.op_type in SELECTS:
            inputs[0] = outputs[0]
        for value in (*inputs, *outputs):
            if value is not None:
                total = total + Size.of(dims_of(value), element_bytes(value))
    return total
