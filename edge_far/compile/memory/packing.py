"""Predicts how tightly an arena packs a graph's buffers: the holes that no later buffer fills.

The buffers of liveness.py are laid out as ONNX Runtime's arena lays them out (core/framework/bfc_arena.cc): best fit,
the lowest address first, freed neighbours joined. The end of the highest buffer is what becomes resident. Decisions of
a best fit are no polynomial in batch and sequence, so the factor between that and the peak of live buffers is found at
a few shapes. It depends on the sequence, whose square is the size of attention weights, and hardly on the batch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

import onnx_ir as ir

from edge_far.compile.graph.sizes import Size
from edge_far.compile.memory.liveness import Buffer, buffers, scratch

__all__ = ["Arena", "packing"]

SEQUENCES = (8, 16, 32, 64, 128, 192, 256, 384, 512)
LAID_OUT_BATCHES = (1, 4, 16)
GRAIN = 256  # bytes; the arena rounds sizes up to it


class Arena:
    """A best-fit allocator with joining of neighbours on an endless region; `peak` is the highest end so far."""

    def __init__(self) -> None:
        self.peak = 0
        self._end = 0
        self._holes: list[tuple[int, int]] = []  # (address, size), by address

    def take(self, size: float) -> tuple[int, int]:
        """Return address and rounded size of a new block."""
        rounded = max(1, -(-int(size) // GRAIN)) * GRAIN
        fitting = [(hole[1], place) for place, hole in enumerate(self._holes) if hole[1] >= rounded]
        if not fitting:
            address = self._end
            self._end += rounded
            self.peak = max(self.peak, self._end)
            return address, rounded
        _, place = min(fitting)
        address, hole = self._holes.pop(place)
        if hole > rounded:
            self._holes.insert(place, (address + rounded, hole - rounded))
        return address, rounded

    def give(self, block: tuple[int, int]) -> None:
        """Free a block."""
        address, size = block
        place = bisect_left(self._holes, block)
        if place < len(self._holes) and self._holes[place][0] == address + size:
            size += self._holes.pop(place)[1]
        if place and sum(self._holes[place - 1]) == address:
            address, before = self._holes.pop(place - 1)
            size += before
        if address + size == self._end:
            self._end = address
        else:
            insort(self._holes, (address, size))


def packing(graph: ir.Graph) -> tuple[tuple[float, float], ...]:
    """Return (sequence, factor) pairs: what the arena holds at its highest, in peaks of the live buffers."""
    held = buffers(graph)
    besides = [scratch(node) for node in graph]
    return tuple(
        (float(sequence), round(max(_factor(held, besides, batch, sequence) for batch in LAID_OUT_BATCHES), 4))
        for sequence in SEQUENCES
    )


def _factor(held: Sequence[Buffer], besides: Sequence[Sequence[Size]], batch: int, sequence: int) -> float:
    """Walk the graph at one shape."""
    arena = Arena()
    starting: dict[int, list[Buffer]] = {}
    ending: dict[int, list[tuple[int, int]]] = {}
    for buffer in held:
        starting.setdefault(buffer.first, []).append(buffer)
    live = peak = 0
    for place, extra in enumerate(besides):
        for buffer in starting.get(place, ()):
            block = arena.take(buffer.size.at(batch, sequence))
            ending.setdefault(buffer.last, []).append(block)
            live += block[1]
        blocks = [arena.take(size.at(batch, sequence)) for size in extra]
        peak = max(peak, live + sum(size for _, size in blocks))
        for block in blocks:
            arena.give(block)
        for block in ending.pop(place, ()):
            arena.give(block)
            live -= block[1]
    return arena.peak / peak if peak else 1.0
