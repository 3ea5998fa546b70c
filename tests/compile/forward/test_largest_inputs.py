"""What calibration sees, against the activations computed by hand; and that it leaves the model as it was."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from edge_far.compile.forward.largest_inputs import by_constants, largest_inputs
from edge_far.far.method import select_above_cut
from edge_far.far.nodes import SplitFfn, find_ffn_blocks
from edge_far.far.reconfigure import reconfigure, trained_parameters
from edge_far.far.select import select_learners
from tests.tiny_graphs import make_graph, random_array
from tests.tiny_models import MAX_POSITIONS, make_batch, make_tiny, torch_logits

pytestmark = pytest.mark.host

BATCHES = [make_batch(length=MAX_POSITIONS, seed=seed, token_types=True) for seed in (0, 1)]


def reconfigured(retention: float) -> torch.nn.Module:
    model = make_tiny("bert", dropout=0.5)
    reconfigure(model, select_learners("random", retention, find_ffn_blocks(model), seed=0))
    return model.train()


def test_largest_inputs_are_those_of_the_frozen_nodes() -> None:
    model = reconfigured(0.25)
    found = largest_inputs(model, BATCHES, list(trained_parameters(model)))
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())
    splits = {name: module for name, module in model.named_modules() if isinstance(module, SplitFfn)}
    assert set(found) == {f"{name}.frozen_{place}.weight" for name in splits for place in ("in", "out")}
    assert len(found) == 4
    model.eval()
    read: dict[str, list[torch.Tensor]] = {name: [] for name in splits}
    hooks = [
        split.register_forward_pre_hook(lambda _, arguments, name=name: read[name].append(arguments[0]))
        for name, split in splits.items()
    ]
    for batch in BATCHES:
        torch_logits(model, batch)
    for hook in hooks:
        hook.remove()
    for name, split in splits.items():
        hidden = [split.activation(split.frozen_in(each)).detach().abs().flatten(0, 1) for each in read[name]]
        expected = torch.cat(hidden).amax(0).numpy()
        np.testing.assert_allclose(found[f"{name}.frozen_out.weight"], expected, rtol=1e-6)
        inputs = torch.cat([each.abs().flatten(0, 1) for each in read[name]]).amax(0).detach().numpy()
        np.testing.assert_array_equal(found[f"{name}.frozen_in.weight"], inputs)


def test_nothing_is_seen_without_batches_or_non_learners() -> None:
    for model, batches in ((reconfigured(0.25), []), (reconfigured(1.0), BATCHES)):
        assert largest_inputs(model, batches, list(trained_parameters(model))) == {}


@pytest.mark.parametrize("split", [False, True])
def test_frozen_queries_keys_and_values_read_the_hidden_states(split: bool) -> None:
    """Attention below a cut is frozen whole; above, the heads that do not learn are."""
    model = make_tiny("bert")
    reconfigure(model, select_above_cut(model, "random", 1.0, 0.25 if split else None, cut=0))
    read: dict[str, torch.Tensor] = {}
    for number, layer in enumerate(model.bert.encoder.layer):
        layer.register_forward_pre_hook(lambda _, arguments, number=number: read.update({number: arguments[0]}))
    found = largest_inputs(model, BATCHES[:1], list(trained_parameters(model, cut=0 if split else 1)))
    places = [f"{number}.attention.self.frozen" for number in (0, 1)] if split else ["0.attention.self"]
    expected = {
        f"bert.encoder.layer.{p}.{name}.weight": int(p[0]) for p in places for name in ("query", "key", "value")
    }
    assert set(found) == set(expected)
    for name, block in expected.items():
        np.testing.assert_array_equal(found[name], read[block].detach().abs().flatten(0, 1).amax(0).numpy())


def test_constants_of_equal_matrices_keep_their_own_figures() -> None:
    matrix, seen = random_array(0, 4, 3), np.arange(4, dtype=np.float32)

    def build(b, x, learner):
        frozen = [b.gemm(x, b.constant(matrix, f"w.{number}")) for number in range(2)]
        return [*frozen, b.gemm(x, learner)]

    model = make_graph({"x": ("batch*sequence", 4), "learner": (4, 3)}, build)
    parameters = {"a.weight": matrix.T, "b.weight": matrix.T, "c.weight": matrix.T + 1}
    found = by_constants(model, parameters, {"a.weight": seen, "b.weight": seen * 9, "c.weight": seen * 7})
    assert list(found) == ["w.0", "w.1"]
    assert np.array_equal(found["w.0"], seen) and np.array_equal(found["w.1"], seen * 9)
