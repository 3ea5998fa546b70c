"""What the parts of a peak take, in MiB: counted from the manifest, or its polynomials at a shape.

peak = runtime + parameters + gradients + optimiser + constants + embeddings + activations(rows, length)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from edge_far.bundles.manifest import GraphInfo, Manifest, Portable, Prefix
from edge_far.device.board.memory import MIB
from edge_far.device.engine.backend import ALONE, ARENA_ROOM, FillWidth, packs_weights, texts_of_a_run
from edge_far.device.optimizers.registry import OPTIMIZERS, state_bytes
from edge_far.texts.batches import padded_length

__all__ = [
    "ARENA_TABLE",
    "FILL_TOKENS",
    "RUNTIME_MIB",
    "SESSION_MIB",
    "activations_mib",
    "evaluation_mib",
    "fill_activations_mib",
    "fixed_parts",
    "prefix_mib",
    "saved_mib",
    "state_mib",
    "value_at",
    "widest_fill",
]

# What Python, NumPy and ONNX Runtime hold before a run, where it cannot be measured: 80 to 85 MiB in the device's
# environment on x86-64 (docs/lab/ladder.md, the parts of a budget).
RUNTIME_MIB = 85.0
# ONNX Runtime's session objects, kernels' scratch memory and the allocators' rounding (docs/lab/performance.md).
SESSION_MIB = 20.0
# The arena's table of blocks takes a 32nd of its region at once.
ARENA_TABLE = 1 + ARENA_ROOM / 32
# Tokens of a run while the cache is filled: with more, a text takes hardly less (docs/lab/ladder.md).
FILL_TOKENS = 128


def saved_mib(manifest: Manifest, optimizer: str) -> dict[str, float]:
    """Return the optimisers with less state than this one, and how much less."""
    sizes = {name: state_mib(manifest, name) for name in OPTIMIZERS}
    return {name: sizes[optimizer] - size for name, size in sizes.items() if size < sizes[optimizer]}


def state_mib(manifest: Manifest, optimizer: str) -> float:
    """Return what an optimiser keeps."""
    return state_bytes(optimizer, (parameter.shape for parameter in manifest.portable.parameters)) / MIB


def fixed_parts(manifest: Manifest, runtime_mib: float, optimizer: str) -> dict[str, float]:
    """Return the parts that no shape changes, by name."""
    trained = manifest.trained_parameters * 4 / MIB
    portable = manifest.portable
    return {
        "runtime": runtime_mib + SESSION_MIB,
        "parameters": trained,
        "gradients": trained,
        "optimiser": state_mib(manifest, optimizer),
        "constants": portable.step_constant_bytes / MIB,
        # All of the mapped tables: kernels that map files in 2 MiB pieces make the whole resident with few look-ups.
        "embeddings": portable.embedding_bytes / MIB,
    }


def activations_mib(graph: GraphInfo, rows: int, length: int) -> float:
    """Return what the arena holds at its highest, with the larger factor of the probed lengths around this one."""
    peak = max(value_at(size, rows, length) for size in graph.peaks)
    place = bisect_right(graph.packing, (length,))
    around = graph.packing[max(0, place - 1) : place + 1]
    return peak * max(factor for _, factor in around) * ARENA_TABLE / MIB


def evaluation_mib(manifest: Manifest, tokens: int, length: int) -> float:
    """Return the same of an evaluation batch of so many tokens, at least one example."""
    return activations_mib(manifest.portable.infer, max(1, tokens // length), length)


def prefix_mib(prefix: Prefix, longest: int) -> dict[str, float]:
    """Return what the prefix takes while it computes one text of `longest` tokens."""
    return {
        "constants": prefix.constant_bytes / MIB,
        "embeddings": prefix.embedding_bytes / MIB,
        "activations": activations_mib(prefix.graph, 1, longest),
    }


def widest_fill(
    portable: Portable, prefix: Prefix, longest: int, threads: int, room_mib: float
) -> tuple[FillWidth, float]:
    """Return how much of the prefix to compute at once, the quickest that has room, and the MiB it takes beyond ALONE.

    With one thread and runs of `longest` tokens it takes none: a text of that length must have its room anyway.
    """
    most = FILL_TOKENS if prefix.by_rows else longest
    for width in (FillWidth(count, tokens) for count in (threads, 1) for tokens in (most, min(most, longest))):
        more = _fill_mib(portable, prefix, longest, width)
        if more <= room_mib:
            return width, more
    return ALONE, 0.0


def fill_activations_mib(prefix: Prefix, longest: int, width: FillWidth) -> float:
    """Return what the arena holds at its highest while texts of up to `longest` tokens are computed."""
    least = padded_length(1)
    lengths = (*range(least, longest, least), longest)
    runs = ((texts_of_a_run(prefix, length, width.tokens), length) for length in lengths)
    return width.threads * max(activations_mib(prefix.graph, texts, length) for texts, length in runs)


def _fill_mib(portable: Portable, prefix: Prefix, longest: int, width: FillWidth) -> float:
    packed = prefix.constant_bytes / MIB if packs_weights(portable, width.threads) else 0.0
    activations = fill_activations_mib(prefix, longest, width) - fill_activations_mib(prefix, longest, ALONE)
    return packed + activations


def value_at(size: Sequence[Sequence[float]], batch: int, sequence: int) -> float:
    """Return a manifest polynomial's value in bytes."""
    return sum(value * batch**b * sequence**s for b, s, value in size)
