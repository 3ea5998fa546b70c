"""Recomputes blocks in the backward pass, so that of the forward pass little more than one value a block is kept.

Works on a finished step graph, whatever operators its blocks consist of:

1. The forward pass ends with the node that makes `loss`.
2. A cut is a place in the forward pass that one large value alone crosses, besides small values and what is made of the
   attention mask: all that comes after depends on what came before through it. In a post-LayerNorm encoder these are
   the inputs of attention and of the feed-forward network.
3. Where neighbouring places are cuts (a sum and its LayerNormalization), the first value that the backward pass reads
   anyway is the one to keep.
4. Kept is what crosses a cut, and every small value (a LayerNormalization's statistics: one number a row). Everything
   else of a segment between two cuts is computed again just before the backward node that reads it.
5. Segments at the end of the forward pass are left as they are while the peak does not depend on them: the backward
   pass begins there.

Dropout's bits are inputs, so a recomputed dropout repeats its mask. The same operators on the same numbers give the
same bits: gradients do not change. Refused: a graph without two cuts, or whose peak does not fall.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from edge_far.compile.graph.edits import insert_before, remove_dead_nodes
from edge_far.compile.graph.notes import PassNote
from edge_far.compile.graph.sizes import Size, dims_of, element_bytes
from edge_far.compile.memory.liveness import activation_peaks, buffer_roots

__all__ = ["rematerialise_blocks"]

# Where sizes are compared: a usual batch.
PROBE_BATCH, PROBE_SEQUENCE = 16, 128
# A value of at most this share of the value at a cut is small.
SMALL_SHARE = 1 / 16
# A peak this much above the smallest is as good, where it saves recomputing a segment.
TOLERATED_PEAK = 1.01
READS_SHAPE = {"Shape", "Size"}


@dataclass(frozen=True)
class _Segment:
    """Forward nodes between two cuts: `first` and `last` are positions in the graph."""

    first: int
    last: int


@dataclass(frozen=True)
class _Forward:
    """The forward nodes of a step, the segments between cuts, and the values that stay."""

    nodes: Sequence[ir.Node]
    segments: Sequence[_Segment]
    kept: frozenset[ir.Value]


def rematerialise_blocks(model: ir.Model) -> PassNote:
    """Recompute in the backward pass what lies between cuts; the model is left as it is where that saves nothing."""
    note = PassNote("rematerialise_blocks")
    before = _peak(model)
    forward = _analyse(model.graph)
    if not forward.segments:
        note.refuse("the forward pass has no two places that one value alone crosses")
        return note
    count, after = _fewest_segments(model, len(forward.segments))
    if after >= before:
        note.refuse("the peak would not fall")
        return note
    nodes = _recompute(forward, list(model.graph), count)
    remove_dead_nodes(model)
    note.changed("segments recomputed", count)
    note.changed("nodes added", nodes)
    return note


def _fewest_segments(model: ir.Model, count: int) -> tuple[int, float]:
    """Return how many segments must be recomputed, from the first on, for the smallest peak; and that peak."""
    peaks: dict[int, float] = {}
    for recomputed in range(count, -1, -1):
        trial = model.clone()
        trial.graph.meta.update(model.graph.meta)
        _recompute(_analyse(trial.graph), list(trial.graph), recomputed)
        peaks[recomputed] = _peak(trial)
        if peaks[recomputed] > TOLERATED_PEAK * peaks[count]:
            break
    lowest = TOLERATED_PEAK * min(peaks.values())
    fewest = min(recomputed for recomputed, peak in peaks.items() if peak <= lowest)
    return fewest, peaks[fewest]


def _peak(model: ir.Model) -> float:
    return max(size.at(PROBE_BATCH, PROBE_SEQUENCE) for size in activation_peaks(model.graph))


# --- where the graph can be cut ------------------------------------------------------------------------------


def _analyse(graph: ir.Graph) -> _Forward:
    """Find forward pass, cuts and kept values."""
    order = list(graph)
    loss = graph.outputs[0].producer()
    nodes = order[: order.index(loss) + 1] if loss is not None else []
    root = buffer_roots(order)
    crossing = _crossing_values(nodes, root)
    content = _made_of_text(graph, nodes)
    large = [[value for value in values if value in content and _is_long(value)] for values in crossing]
    width = _usual_size(large)
    single = [_single(values, width) for values in large]
    cuts = _choose_cuts(nodes, single, root)
    kept = {value for position in cuts for value in crossing[position]}
    outputs = [value for node in nodes for value in node.outputs if value.name]
    kept |= {value for value in outputs if _bytes(value) <= SMALL_SHARE * width}
    starts = [0, *(position + 1 for position in cuts)]
    segments = [_Segment(first, last) for first, last in zip(starts, cuts, strict=False)]
    aliases = {value for value, source in root.items() if source in kept}
    return _Forward(nodes, segments if len(cuts) > 1 else (), frozenset(kept | aliases))


def _crossing_values(nodes: Sequence[ir.Node], root: dict[ir.Value, ir.Value]) -> list[list[ir.Value]]:
    """Return for each forward position the values computed up to there that later forward nodes read."""
    last: dict[ir.Value, int] = {}
    for position, node in enumerate(nodes):
        for value in node.inputs:
            if value is not None and value.producer() is not None:
                last[root.get(value, value)] = position
    held: dict[ir.Value, int] = {}
    crossing = []
    for position, node in enumerate(nodes):
        for value in node.outputs:
            if value in last:
                held[value] = last[value]
        held = {value: end for value, end in held.items() if end > position}
        crossing.append(list(held))
    return crossing


def _made_of_text(graph: ir.Graph, nodes: Sequence[ir.Node]) -> set[ir.Value]:
    """Return what depends on more of the inputs than the attention mask and their shapes."""
    found = {value for value in graph.inputs if value.name != "attention_mask"}
    for node in nodes:
        if node.op_type not in READS_SHAPE and any(value in found for value in node.inputs):
            found.update(node.outputs)
    return found


def _usual_size(large: Sequence[Sequence[ir.Value]]) -> float:
    """Return the bytes of the value that crosses most of the places that one large value alone crosses."""
    sizes = Counter(_bytes(values[0]) for values in large if len(values) == 1)
    return max(sizes, key=lambda size: (sizes[size], size), default=0.0)


def _single(values: Sequence[ir.Value], width: float) -> ir.Value | None:
    """Return the one value of a place that is not small, or None where there is none or it is wider than usual."""
    large = [value for value in values if _bytes(value) > SMALL_SHARE * width]
    return large[0] if len(large) == 1 and _bytes(large[0]) <= width else None


def _choose_cuts(
    nodes: Sequence[ir.Node], single: Sequence[ir.Value | None], root: dict[ir.Value, ir.Value]
) -> list[int]:
    """Return one position for each run of neighbouring cuts, by rule 3."""
    inside = set(nodes)
    read = {
        root.get(value, value)
        for node in nodes
        for value in node.outputs
        if any(user not in inside for user, _ in value.uses())
    }
    cuts: list[int] = []
    run: list[int] = []
    for position in range(len(single) + 1):
        if position < len(single) and single[position] is not None:
            run.append(position)
        elif run:
            cuts.append(next((place for place in run if single[place] in read), run[-1]))
            run = []
    return cuts


def _is_long(value: ir.Value) -> bool:
    """Say whether a value grows with the number of tokens."""
    return any(batch and sequence for batch, sequence in Size.of(dims_of(value)).terms)


def _bytes(value: ir.Value) -> float:
    return Size.of(dims_of(value), element_bytes(value)).at(PROBE_BATCH, PROBE_SEQUENCE)


# --- recomputation -------------------------------------------------------------------------------------------


def _recompute(forward: _Forward, order: Sequence[ir.Node], count: int) -> int:
    """Compute again, before each backward node, what it reads of the first `count` segments; return nodes added."""
    dropped: dict[ir.Value, ir.Node] = {}
    for segment in forward.segments[:count]:
        for node in forward.nodes[segment.first : segment.last + 1]:
            dropped |= {value: node for value in node.outputs if value not in forward.kept}
    position = {node: index for index, node in enumerate(forward.nodes)}
    clones: dict[ir.Value, ir.Value] = {}
    for reader in order[len(forward.nodes) :]:
        needed = _ancestors([value for value in reader.inputs if value is not None], dropped, clones)
        added = [_clone(node, clones) for node in sorted(needed, key=position.__getitem__)]
        if added:
            assert reader.graph is not None
            insert_before(reader.graph, reader, added)
        for index, value in enumerate(reader.inputs):
            if value in clones:
                reader.replace_input_with(index, clones[value])
    return len({value.producer() for value in clones.values()})


def _ancestors(
    values: list[ir.Value], dropped: dict[ir.Value, ir.Node], clones: dict[ir.Value, ir.Value]
) -> set[ir.Node]:
    """Return the forward nodes that must run again for these values."""
    found: set[ir.Node] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        node = dropped.get(value)
        if node is None or value in clones or node in found:
            continue
        found.add(node)
        waiting += [source for source in node.inputs if source is not None]
    return found


def _clone(node: ir.Node, clones: dict[ir.Value, ir.Value]) -> ir.Node:
    """Copy a node, reading copies where there are any."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        [value if value is None else clones.get(value, value) for value in node.inputs],
        [ir.Attr(name, attribute.type, attribute.value) for name, attribute in node.attributes.items()],
        num_outputs=len(node.outputs),
        name=f"again.{node.name}",
    )
    for old, new in zip(node.outputs, copy.outputs, strict=True):
        # An empty name leaves an optional output out.
        new.name, new.shape, new.type = f"again.{old.name}" if old.name else "", old.shape, old.type
        clones[old] = new
    return copy
