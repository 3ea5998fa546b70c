"""Each loss of the compiler against the one of the same name in torch: value and gradient."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir
import torch

from edge_far.bundles.manifest import TOKEN_LOSSES
from edge_far.compile.gradient.losses import LOSSES, add_loss
from edge_far.far.above_cut import LOSSES as TORCH_LOSSES
from edge_far.far.above_cut import mean_loss
from tests.tiny_graphs import run_graph

pytestmark = pytest.mark.host


def _spans(random: np.random.Generator, outputs: int) -> np.ndarray:
    """Return 1 at one of seven tokens for each output, else 0, and -1 for a third that cannot be said."""
    targets = np.where(random.random((5, 7, 1)) < 0.3, -1.0, 0.0).repeat(outputs, axis=2)
    places = random.integers(0, 7, (5, outputs))
    targets[np.arange(5)[:, None], places, np.arange(outputs)] = 1.0
    return targets.astype(np.float32)


def test_both_sides_know_the_same_losses() -> None:
    assert set(LOSSES) == set(TORCH_LOSSES)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("outputs", [1, 4])
def test_value_and_gradient_are_torch_s(name: str, outputs: int) -> None:
    random = np.random.default_rng(outputs)
    tokens = (7,) if name in TOKEN_LOSSES else ()
    logits = (random.normal(size=(5, *tokens, outputs)) * 4).astype(np.float32)
    logits[0] *= 50  # far from where a naive formula overflows
    targets = {
        "softmax": lambda: random.integers(0, outputs, 5),
        "square": lambda: random.normal(size=(5, outputs)).astype(np.float32),
        "sigmoid": lambda: random.integers(0, 2, (5, outputs)).astype(np.float32),
        "token_softmax": lambda: random.integers(-2, outputs, (5, 7)),  # below 0: no target
        "span": lambda: _spans(random, outputs),
    }[name]()
    dims = ["batch", *(["sequence"] if tokens else []), outputs]
    value = ir.Value(name="logits", shape=ir.Shape(dims), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([value], [value], nodes=[], name="loss", opset_imports={"": 20})
    model = ir.Model(graph, ir_version=10)
    graph.outputs.append(add_loss(model, name))
    loss, gradient = run_graph(model, logits=logits, labels=targets, loss_scale=np.array(0.2, np.float32))
    tensor = torch.tensor(logits, requires_grad=True)
    expected = mean_loss(name, tensor, targets)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-5, atol=1e-6)
