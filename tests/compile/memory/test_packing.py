"""The arena's layout: best fit, joined neighbours, and factors of hand-made graphs."""

from __future__ import annotations

import itertools
import random

import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.graph.builder import Builder
from edge_far.compile.memory.packing import GRAIN, SEQUENCES, Arena, packing
from tests.tiny_graphs import FLOAT, make_graph

pytestmark = pytest.mark.host


def test_a_block_goes_into_the_smallest_hole_that_fits() -> None:
    arena = Arena()
    large, _, small, _ = (arena.take(size * GRAIN) for size in (8, 1, 4, 1))
    arena.give(large)
    arena.give(small)
    assert arena.take(3 * GRAIN) == (small[0], 3 * GRAIN)
    assert arena.take(GRAIN) == (small[0] + 3 * GRAIN, GRAIN), "what is left of a hole is one"
    assert arena.take(2 * GRAIN) == (large[0], 2 * GRAIN) and arena.peak == 14 * GRAIN


def test_freed_neighbours_become_one_and_the_end_draws_back() -> None:
    arena = Arena()
    blocks = [arena.take(GRAIN) for _ in range(4)]
    for place in (0, 2, 1):
        arena.give(blocks[place])
    assert arena.take(3 * GRAIN) == (0, 3 * GRAIN)
    arena.give(blocks[3])
    assert arena.take(2 * GRAIN)[0] == 3 * GRAIN and arena.peak == 5 * GRAIN


def test_blocks_never_overlap() -> None:
    chance, arena, taken = random.Random(0), Arena(), []
    for _ in range(2000):
        if taken and chance.random() < 0.5:
            arena.give(taken.pop(chance.randrange(len(taken))))
        else:
            taken.append(arena.take(chance.choice((1, 300, 5000, 70_000))))
        places = sorted(taken)
        assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(places))
        assert all(address + size <= arena.peak for address, size in taken)
    for block in taken:
        arena.give(block)
    assert arena.take(10**6)[0] == 0, "all of it is one hole again"


def test_a_hole_that_nothing_fits_is_counted() -> None:
    """x2 (one row) and x4 (two) are held; x4 does not fit what x2's predecessor left."""

    def chain(b: Builder, x: ir.Value) -> ir.Value:
        small = b.unary("Exp", x)
        kept = b.unary("Neg", small)
        wide = b.op("Concat", [kept, kept], ("batch", 8192), axis=1)
        return b.op("Concat", [wide, kept], ("batch", 12288), axis=1)

    model = make_graph({"x": (("batch", 4096), FLOAT)}, chain)
    # Live at most: kept (1) and wide (2) of 16 KiB a row. Held: the hole before them too.
    assert packing(model.graph) == tuple((float(s), pytest.approx(4 / 3, abs=1e-3)) for s in SEQUENCES)


def test_a_graph_without_buffers_has_the_factor_one() -> None:
    model = make_graph({"x": (("batch", 4096), FLOAT)}, lambda b, x: b.unary("Exp", x))
    assert {factor for _, factor in packing(model.graph)} == {1.0}
