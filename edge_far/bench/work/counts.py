"""What a step asks of any machine: floating-point operations and bytes, of the graphs of a bundle.

1. Floating-point operations are those of products and attentions, whatever their precision (device/planning/work.py).
2. Bytes are what operators read and write, and the optimiser's; for these a graph library is needed (traffic.py).
3. A step is its micro-batches and one update. A fill is the prefix once a text, in runs of as many texts as share
   one where there is room (device/engine/prefix.py).

The same on every machine; no time follows from them alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_far.bench.environments import can_count
from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.backend import texts_of_a_run
from edge_far.device.optimizers.registry import state_bytes
from edge_far.device.planning.parts import FILL_TOKENS
from edge_far.device.planning.work import batch_flops, graph_flops

__all__ = ["Counts", "Work", "count_fill", "count_step"]


@dataclass(frozen=True)
class Counts:
    """Of one step or fill of a batch; None where nobody counted."""

    flops: float | None = None
    bytes_moved: float | None = None


@dataclass(frozen=True)
class Work:
    """How much is computed at once: examples of a step and of a micro-batch, and their tokens."""

    batch: int
    micro_batch: int
    length: int


def count_step(bundle: Bundle, graph: str, optimizer: str, work: Work) -> Counts:
    """Return the counts of one optimiser step by one of the step graphs."""
    manifest = bundle.manifest
    (costs,) = (step.costs for step in manifest.portable.steps if step.name == graph)
    flops = batch_flops(costs, work.batch, work.micro_batch, work.length)
    if not can_count():
        return Counts(flops)
    from edge_far.bench.work.traffic import step_bytes

    state = state_bytes(optimizer, (parameter.shape for parameter in manifest.portable.parameters))
    path = bundle.path(f"portable/{graph}.onnx")
    moved = step_bytes(path, manifest.trained_parameters, state, work.batch, work.micro_batch, work.length)
    return Counts(flops, moved)


def count_fill(bundle: Bundle, work: Work) -> Counts:
    """Return the counts of the prefix over the texts of a batch."""
    prefix = bundle.manifest.portable.prefix
    assert prefix is not None
    flops = work.batch * graph_flops(prefix.graph.costs, 1, work.length)
    if not can_count():
        return Counts(flops)
    from edge_far.bench.work.traffic import file_bytes

    path = bundle.path(f"portable/{prefix.graph.name}.onnx")
    together = min(texts_of_a_run(prefix, work.length, FILL_TOKENS), work.batch)
    return Counts(flops, work.batch / together * file_bytes(path, together, work.length))
