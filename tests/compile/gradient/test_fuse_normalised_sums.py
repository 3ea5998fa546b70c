"""Sums inside a normalisation: exact nodes, the same numbers, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from edge_far.compile.gradient.fuse_normalised_sums import fuse_normalised_sums
from tests.tiny_graphs import FLOAT, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
BATCH, LENGTH, WIDTH = 3, 5, 16
GAMMA, BETA = random_array(0, WIDTH), random_array(1, WIDTH)
EPSILON = 1e-2  # large, so that another one would show
FUSED = "com.microsoft.SkipLayerNormalization"


def norm(b, value, dims):
    outputs = [(dims, FLOAT), ((*dims[:-1], 1), FLOAT), ((*dims[:-1], 1), FLOAT)]
    gamma, beta = b.constant(GAMMA, "gamma"), b.constant(BETA, "beta")
    return b.multi("LayerNormalization", [value, gamma, beta], outputs, axis=-1, epsilon=EPSILON)


def compare(inputs, build, expected: list[str], *arrays: np.ndarray) -> None:
    plain, fused = make_graph(inputs, build), make_graph(inputs, build)
    note = fuse_normalised_sums(fused)
    assert operators(fused) == expected
    assert note.changes == ({"sums inside a normalisation": 1} if FUSED in expected else {})
    for found, wanted in zip(run_graph(fused, *arrays), run_graph(plain, *arrays), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_rows() -> None:
    inputs = {"x": (TOKENS, WIDTH), "y": (TOKENS, WIDTH)}
    rows = random_array(2, 10, WIDTH), random_array(3, 10, WIDTH)

    def build(b, x, y):
        return b.unary("Neg", norm(b, b.add(x, y), (TOKENS, WIDTH))[0])

    compare(inputs, build, [FUSED, "Neg"], *rows)


def test_positions_that_are_the_same_for_the_whole_batch_and_a_reshape() -> None:
    inputs = {"x": ("batch", "sequence", WIDTH), "y": (1, "sequence", WIDTH)}
    arrays = random_array(4, BATCH, LENGTH, WIDTH), random_array(5, 1, LENGTH, WIDTH)

    def build(b, x, y):
        return b.unary("Neg", norm(b, b.reshape_to(b.add(x, y), (TOKENS, WIDTH)), (TOKENS, WIDTH))[0])

    compare(inputs, build, [FUSED, "Reshape", "Neg"], *arrays)


def test_statistics_that_the_backward_pass_reads_keep_the_normalisation() -> None:
    inputs = {"x": (TOKENS, WIDTH), "y": (TOKENS, WIDTH)}
    model = make_graph(inputs, lambda b, x, y: [b.unary("Neg", each) for each in norm(b, b.add(x, y), (TOKENS, WIDTH))])
    note = fuse_normalised_sums(model)
    assert operators(model)[:2] == ["Add", "LayerNormalization"] and len(note.refusals) == 1


def test_a_sum_with_other_readers_stays() -> None:
    inputs = {"x": (TOKENS, WIDTH), "y": (TOKENS, WIDTH)}
    rows = random_array(6, 10, WIDTH), random_array(7, 10, WIDTH)

    def build(b, x, y):
        total = b.add(x, y)
        return [b.unary("Neg", norm(b, total, (TOKENS, WIDTH))[0]), b.unary("Neg", total)]

    compare(inputs, build, ["Add", "LayerNormalization", "Neg", "Neg"], *rows)


def test_a_row_added_to_every_row_stays() -> None:
    inputs = {"x": (TOKENS, WIDTH), "y": (1, WIDTH)}

    def build(b, x, y):
        return b.unary("Neg", norm(b, b.add(x, y), (TOKENS, WIDTH))[0])

    expected = ["Add", "LayerNormalization", "Neg"]
    compare(inputs, build, expected, random_array(8, 10, WIDTH), random_array(9, 1, WIDTH))
