"""What frozen parameters alone decide is computed at export; embeddings lose look-ups; refusals say why."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.forward.fold import fold_constants, fold_embeddings
from edge_far.compile.graph.builder import Builder
from tests.tiny_graphs import FLOAT, INT64, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

POSITIONS, H = 16, 4
WORDS, PLACES, KINDS = random_array(0, 9, H), random_array(1, POSITIONS, H), random_array(2, 2, H)
INPUTS = {
    "input_ids": (("batch", "sequence"), INT64),
    "attention_mask": (("batch", "sequence"), INT64),
    "token_type_ids": (("batch", "sequence"), INT64),
}
ROWS = ("batch", "sequence", H)


def feeds() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, high, (3, 8)) for high in (9, 2, 2)]


def gather(b: Builder, table: ir.Value, index: ir.Value, shape: tuple[int | str, ...]) -> ir.Value:
    return b.op("Gather", [table, index], shape, axis=0)


def position_index(b: Builder) -> ir.Value:
    """Return Range(0, length)[None] of input_ids, as exporters write it."""
    length = b.op("Squeeze", [b.input_shape(1, 2)], (), dtype=INT64)
    zero, one = (b.constant(np.array(n, np.int64), f"int.{n}") for n in (0, 1))
    numbers = b.op("Range", [zero, length, one], ("sequence",), dtype=INT64)
    axis = b.constant(np.array([0], np.int64), "axis.0")
    return b.op("Unsqueeze", [numbers, axis], (1, "sequence"), dtype=INT64)


def embeddings(b: Builder, ids: ir.Value, kinds: ir.Value, words: ir.Value, places: ir.Value, types: ir.Value):
    total = b.add(gather(b, words, ids, ROWS), gather(b, types, kinds, ROWS))
    return b.add(total, gather(b, places, position_index(b), (1, "sequence", H)))


def expected() -> np.ndarray:
    ids, _, kinds = feeds()
    return WORDS[ids] + KINDS[kinds] + PLACES[None, :8]


def test_frozen_tables_become_two_look_ups() -> None:
    model = make_graph(
        INPUTS,
        lambda b, ids, _mask, kinds: embeddings(
            b, ids, kinds, *(b.constant(t, n) for t, n in ((WORDS, "w"), (PLACES, "p"), (KINDS, "k")))
        ),
    )
    note = fold_embeddings(model, POSITIONS)
    assert operators(model) == ["Gather", "Shape", "Slice", "Mul", "Add", "Gather", "Add"]
    assert note.changes == {"position look-ups sliced": 1, "type and position tables summed": 1}
    assert not note.refusals
    assert sorted(dict(model.graph.initializers)) == [
        "position_and_type_rows",
        "position_offsets",
        "position_stride",
        "slice.axis",
        "slice.start",
        "w",
    ]
    np.testing.assert_allclose(run_graph(model, *feeds())[0], expected(), rtol=1e-6, atol=1e-6)


def test_trained_tables_stay_apart() -> None:
    inputs = INPUTS | {"w": ((9, H), FLOAT), "p": ((POSITIONS, H), FLOAT), "k": ((2, H), FLOAT)}
    model = make_graph(inputs, lambda b, ids, _mask, kinds, w, p, k: embeddings(b, ids, kinds, w, p, k))
    note = fold_embeddings(model, POSITIONS)
    assert operators(model).count("Gather") == 3 and "Range" not in operators(model)
    assert note.changes == {"position look-ups sliced": 1} and len(note.refusals) == 1
    assert note.refusals[0].startswith("sum of position and type tables: ")
    found = run_graph(model, *feeds(), w=WORDS, p=PLACES, k=KINDS)[0]
    np.testing.assert_allclose(found, expected(), rtol=1e-6, atol=1e-6)


def test_a_model_without_types_refuses_the_sum() -> None:
    def build(b: Builder, ids: ir.Value, *_: ir.Value) -> ir.Value:
        words, places = b.constant(WORDS, "w"), b.constant(PLACES, "p")
        return b.add(gather(b, words, ids, ROWS), gather(b, places, position_index(b), (1, "sequence", H)))

    model = make_graph(INPUTS, build)
    note = fold_embeddings(model, POSITIONS)
    assert note.refusals == ["sum of position and type tables: this model adds no frozen pair of them"]
    assert operators(model) == ["Gather", "Shape", "Slice", "Add"]
    found = run_graph(model, *feeds())[0]
    np.testing.assert_allclose(found, WORDS[feeds()[0]] + PLACES[None, :8], rtol=1e-6, atol=1e-6)


def test_two_word_look_ups_are_refused() -> None:
    def build(b: Builder, ids: ir.Value, *_: ir.Value) -> ir.Value:
        words = b.constant(WORDS, "w")
        return b.add(gather(b, words, ids, ROWS), gather(b, words, ids, ROWS))

    model = make_graph(INPUTS, build)
    note = fold_embeddings(model, POSITIONS)
    assert note.refusals == ["sum of tables: expected one word look-up, found 2"]
    assert operators(model) == ["Gather", "Gather", "Add"]


def test_constants_are_folded_and_learners_are_not() -> None:
    frozen = random_array(3, 5, H)

    def build(b: Builder, x: ir.Value, learner: ir.Value) -> list[ir.Value]:
        folded = b.op("MatMul", [x, b.transpose(b.constant(frozen, "frozen"), (1, 0))], ("batch", 5))
        kept = b.op("MatMul", [x, b.transpose(learner, (1, 0))], ("batch", 5))
        return [folded, kept]

    model = make_graph({"x": (("batch", H), FLOAT), "learner": ((5, H), FLOAT)}, build)
    note = fold_constants(model)
    assert operators(model) == ["MatMul", "Transpose", "MatMul"] and note.changes == {"nodes folded": 1}
    x, learner = random_array(4, 3, H), random_array(5, 5, H)
    found = run_graph(model, x, learner)
    np.testing.assert_allclose(found[0], x @ frozen.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], x @ learner.T, rtol=1e-5, atol=1e-6)


def test_what_else_counts_the_tokens_is_a_slice_too() -> None:
    """Distances between tokens are no position look-up, but count as positions do."""
    model = make_graph(INPUTS, lambda b, *_: b.cast(position_index(b), FLOAT))
    (before,) = run_graph(model, *feeds())
    note = fold_embeddings(model, POSITIONS)
    assert note.changes == {"ranges sliced": 1}
    assert operators(model) == ["Shape", "Slice", "Unsqueeze", "Cast"]
    np.testing.assert_array_equal(run_graph(model, *feeds())[0], before)
