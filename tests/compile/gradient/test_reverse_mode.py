"""Differentiation of whole graphs: only what learners need, accumulated in place; refusals name node and operator."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir
import torch

from edge_far.compile.gradient.losses import add_loss
from edge_far.compile.gradient.reverse_mode import add_gradients
from edge_far.compile.graph.builder import Builder
from edge_far.errors import Unavailable
from tests.tiny_graphs import FLOAT, INT64, make_graph, operators, random_array, run_graph

pytestmark = pytest.mark.host

FROZEN = random_array(9, 6, 4)


def make_network() -> ir.Model:
    """Return logits = tanh(gelu(x a) frozen) c, in which `a` and `c` can learn."""

    def build(b: Builder, x: ir.Value, a: ir.Value, c: ir.Value) -> ir.Value:
        hidden = b.unary("Gelu", b.gemm(x, a))
        frozen = b.gemm(hidden, b.constant(FROZEN, "frozen"))
        return b.gemm(b.unary("Tanh", frozen), c)

    return make_graph({"x": ("batch", 5), "a": (5, 6), "c": (4, 3)}, build)


def torch_logits(x: np.ndarray, a: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    hidden = torch.nn.functional.gelu(torch.tensor(x) @ a)
    return torch.tanh(hidden @ torch.tensor(FROZEN)) @ c


def differentiate(model: ir.Model, *learners: str) -> None:
    (logits,) = model.graph.outputs
    add_gradients(model, logits, add_loss(model, "softmax"), learners)


def test_loss_and_gradients_accumulate_onto_what_is_there() -> None:
    model = make_network()
    differentiate(model, "a", "c")
    assert [value.name for value in model.graph.inputs][3:] == ["labels", "loss_scale", "acc.a", "acc.c"]
    assert [value.name for value in model.graph.outputs] == ["loss", "grad.a", "grad.c"]
    x, labels = random_array(0, 7, 5), np.array([0, 1, 2, 0, 1, 2, 0])
    a, c = (torch.tensor(random_array(n, *shape), requires_grad=True) for n, shape in ((1, (5, 6)), (2, (4, 3))))
    loss = 0.25 * torch.nn.functional.cross_entropy(torch_logits(x, a, c), torch.tensor(labels), reduction="sum")
    expected = torch.autograd.grad(loss, (a, c))
    start = {"acc.a": random_array(3, 5, 6), "acc.c": random_array(4, 4, 3)}
    scale = np.array(0.25, np.float32)
    found = run_graph(model, x, a.detach().numpy(), c.detach().numpy(), labels=labels, loss_scale=scale, **start)
    assert found[0] == pytest.approx(loss.item(), rel=1e-6)
    np.testing.assert_allclose(found[1], start["acc.a"] + expected[0].numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[2], start["acc.c"] + expected[1].numpy(), rtol=1e-5, atol=1e-6)


def test_nothing_is_built_upstream_of_the_first_learner() -> None:
    model, forward = make_network(), operators(make_network())
    differentiate(model, "c")
    loss = ["LogSoftmax", "OneHot", "Mul", "ReduceSum", "Neg", "Exp", "Sub", "Mul", "Mul"]
    assert operators(model) == [*forward, *loss, "Gemm"]


def test_the_first_learner_needs_no_gradient_of_the_input() -> None:
    model = make_network()
    differentiate(model, "a")
    backward = operators(model)[len(operators(make_network())) + 9 :]
    assert backward == [
        "Gemm",  # of tanh: through c, which itself gets none
        "Mul",
        "Sub",
        "Mul",
        "Gemm",  # through the frozen matrix
        "edge_far.GeluGrad",
        "Gemm",  # a's own, with the accumulator inside
    ]


def test_a_value_read_twice_gets_both_gradients() -> None:
    model = make_graph({"x": (3, 4), "w": (4, 4)}, lambda b, x, w: b.gemm(b.gemm(x, w), w))
    (y,) = model.graph.outputs
    seed = Builder(model.graph, "s").constant(random_array(5, 3, 4), "dy")
    add_gradients(model, y, seed, ["w"])
    x, w = random_array(0, 3, 4), torch.tensor(random_array(1, 4, 4), requires_grad=True)
    (expected,) = torch.autograd.grad(torch.tensor(x) @ w @ w, w, torch.tensor(random_array(5, 3, 4)))
    _, found = run_graph(model, x, w.detach().numpy(), **{"acc.w": np.zeros((4, 4), np.float32)})
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_an_operator_without_a_rule_is_named_with_its_node() -> None:
    model = make_graph({"x": (3, 4), "w": (4, 2)}, lambda b, x, w: b.unary("Sin", b.gemm(x, w)))
    node = list(model.graph)[1]
    with pytest.raises(Unavailable) as raised:
        differentiate(model, "w")
    assert raised.value.message == "no gradient rule for operator Sin"
    assert node.name is not None and node.name in str(raised.value.where)
    assert "gradient/rules.py" in str(raised.value.hint)


def test_an_operator_without_a_rule_does_not_matter_upstream_of_all_learners() -> None:
    model = make_graph({"x": (3, 4), "w": (4, 2)}, lambda b, x, w: b.gemm(b.unary("Sin", x), w))
    differentiate(model, "w")
    assert "grad.w" in [value.name for value in model.graph.outputs]


def test_a_learner_the_loss_does_not_reach_is_refused() -> None:
    model = make_graph({"x": (3, 4), "w": (4, 2), "unused": (2,)}, lambda b, x, w, unused: [b.gemm(x, w)])
    with pytest.raises(Unavailable, match="does not depend on the trained parameter unused"):
        differentiate(model, "w", "unused")


def test_loss_ignores_the_size_of_other_logits() -> None:
    """Logits of 1e4 neither overflow nor lose the gradient."""
    model = make_graph({"x": (("batch", 3), FLOAT)}, lambda b, x: b.add(x, x))
    gradient = add_loss(model, "softmax")
    model.graph.outputs.append(gradient)
    assert model.graph.inputs[1].dtype == INT64
    x = np.array([[1e4, 0, -1e4], [0, 1, 2]], np.float32)
    loss, found = run_graph(model, x, labels=np.array([1, 2]), loss_scale=np.array(1, np.float32))
    tensor = torch.tensor(2 * x, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(tensor, torch.tensor([1, 2]), reduction="sum")
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(found, torch.autograd.grad(expected, tensor)[0].numpy(), rtol=1e-5, atol=1e-7)
