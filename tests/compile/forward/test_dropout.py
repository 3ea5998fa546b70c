"""Dropout on the way into the step: removed, or bound to inputs of packed bits."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.forward.dropout import bind_dropout_masks, remove_dropout
from edge_far.compile.graph.builder import Builder
from edge_far.compile.graph.sizes import TOKENS
from edge_far.errors import Unavailable
from tests.tiny_graphs import FLOAT, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host


def drop(b: Builder, x: ir.Value, probability: float) -> ir.Value:
    ratio = b.constant(np.array(probability, np.float32), f"ratio.{probability}")
    return b.op("Dropout", [x, ratio], [d if isinstance(d, int) else str(d.value) for d in x.shape])


def make_model(*probabilities: float, width: int = 16) -> ir.Model:
    def build(b: Builder, x: ir.Value) -> ir.Value:
        for probability in probabilities:
            x = drop(b, b.unary("Neg", x), probability)
        return x

    return make_graph({"x": ((TOKENS, width), FLOAT)}, build)


def test_removed() -> None:
    model = make_model(0.1, 0.5)
    note = remove_dropout(model)
    assert operators(model) == ["Neg", "Neg"] and note.changes == {"dropouts removed": 2}
    x = random_array(0, 4, 16)
    np.testing.assert_array_equal(run_graph(model, x)[0], x)


def test_bound_to_masks_in_node_order_with_one_table_a_probability() -> None:
    model = make_model(0.1, 0.25, 0.1)
    note, masks = bind_dropout_masks(model)
    assert [mask.name for mask in masks] == ["dropout.0", "dropout.1", "dropout.2"]
    assert [mask.probability for mask in masks] == pytest.approx([0.1, 0.25, 0.1])
    assert [mask.factors for mask in masks] == [f"dropout.factors.{p}" for p in ("0.1", "0.25", "0.1")]
    assert {mask.shape for mask in masks} == {(TOKENS, 2)}
    inputs = {str(value.name): value for value in model.graph.inputs}
    assert set(inputs) == {"x", *(m.name for m in masks), "dropout.factors.0.1", "dropout.factors.0.25"}
    assert all(inputs[mask.name].dtype == ir.DataType.UINT8 for mask in masks)
    assert operators(model) == ["Neg", "edge_far.MaskedDropout"] * 3
    assert note.changes == {"dropouts bound to mask inputs": 3}


def test_a_probability_of_zero_needs_no_mask() -> None:
    model = make_model(0.0)
    _, masks = bind_dropout_masks(model)
    assert not masks and operators(model) == ["Neg"]


def test_a_width_that_bits_do_not_fill_is_refused() -> None:
    with pytest.raises(Unavailable, match="last dimension of 12, which 8 does not divide"):
        bind_dropout_masks(make_model(0.1, width=12))
