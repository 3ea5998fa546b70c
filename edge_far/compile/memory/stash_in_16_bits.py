"""Keeps queries, keys and values for the backward pass in 16 bits: half of what an attention leaves behind.

Each becomes float16 (a relative error of at most 2^-11, for numbers up to 65,504) behind the attention, and float32
again where the backward pass reads it. For the step graph that saves memory; the exact plan goes without.
"""

from __future__ import annotations

import onnx_ir as ir

from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.edits import first_reader, insert_before, later_uses, places
from edge_far.compile.graph.notes import PassNote

__all__ = ["stash_in_16_bits"]


def stash_in_16_bits(model: ir.Model) -> PassNote:
    """Rewrite what the backward pass reads of every Attention's first three inputs."""
    note = PassNote("stash_in_16_bits")
    graph = model.graph
    position, end = places(graph)
    for attention in [node for node in graph if node.op_type == "Attention" and position[node] <= end]:
        for value in attention.inputs[:3]:
            assert value is not None
            later = later_uses(value, position, end)
            if not later:
                continue
            forward = Builder(graph, "half")
            stash = forward.cast(value, ir.DataType.FLOAT16)
            graph.insert_after(attention, forward.nodes)
            backward = Builder(graph, "half")
            restored = backward.cast(stash, ir.DataType.FLOAT)
            insert_before(graph, first_reader(later, position), backward.nodes)
            for user, index in later:
                user.replace_input_with(index, restored)
            note.changed("activations kept in 16 bits")
    return note
