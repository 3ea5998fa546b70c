"""LayerNormalization's gradient from its output equals the one from its input, where gamma allows it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir
import torch

from edge_far.compile.graph.builder import INTERNAL
from edge_far.compile.precision.stash_layer_norm import normalise_from_outputs
from tests.tiny_graphs import FLOAT, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

TOKENS = "batch*sequence"
X, DY, W = random_array(0, 12, 32) * 3, random_array(1, 12, 32), random_array(2, 32, 8)
GAMMA = 1 + 0.3 * random_array(3, 32)
BETA = random_array(4, 32)


def model_of(rows: str = TOKENS) -> ir.Model:
    def build(b, x, dy, gamma, beta):
        outputs = [((rows, 32), FLOAT), ((rows, 1), FLOAT), ((rows, 1), FLOAT)]
        y, mean, rate = b.multi("LayerNormalization", [x, gamma, beta], outputs, axis=-1, epsilon=1e-12)
        reader = b.gemm(y, b.constant(W, "w"))
        parts = [((rows, 32), FLOAT), ((32,), FLOAT), ((32,), FLOAT)]
        return [reader, *b.multi("LayerNormalizationGrad", [dy, x, gamma, mean, rate], parts, domain=INTERNAL)]

    return make_graph({"x": (rows, 32), "dy": (rows, 32), "gamma": (32,), "beta": (32,)}, build)


def test_gradients_equal_torch() -> None:
    model = model_of()
    note = normalise_from_outputs(model, {"gamma": GAMMA})
    assert note.changes == {"normalised inputs taken from outputs": 1}
    assert operators(model) == ["LayerNormalization", "Gemm", "edge_far.LayerNormalizationGradFromOutput"]
    found = run_graph(model, X, DY, GAMMA, BETA)[1:]
    x, gamma, beta = (torch.tensor(array, requires_grad=True) for array in (X, GAMMA, BETA))
    torch.nn.functional.layer_norm(x, (32,), gamma, beta, 1e-12).backward(torch.tensor(DY))
    for ours, theirs in zip(found, (x.grad, gamma.grad, beta.grad), strict=True):
        assert np.linalg.norm(ours - theirs.numpy()) <= 1e-5 * np.linalg.norm(theirs.numpy())


def test_a_gamma_near_zero_is_refused() -> None:
    model = model_of()
    dead = GAMMA.copy()
    dead[5] = 1e-20
    note = normalise_from_outputs(model, {"gamma": dead})
    assert operators(model)[-1] == "edge_far.LayerNormalizationGrad"
    assert note.refusals == ["gamma: an element of size 1.0e-20 is too small to divide by"]


def test_one_row_an_example_is_refused() -> None:
    note = normalise_from_outputs(model_of("batch"), {"gamma": GAMMA})
    assert len(note.refusals) == 1 and "saves nothing" in note.refusals[0]
