"""What calibration sees, against the activations computed by hand; and that it leaves the model as it was."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from edge_far.compile.forward.largest_inputs import largest_inputs
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.reconfigure import SplitFfn, reconfigure
from edge_far.far.select import select_learners
from tests.tiny_models import MAX_POSITIONS, make_batch, make_tiny, torch_logits

pytestmark = pytest.mark.host

BATCHES = [make_batch(length=MAX_POSITIONS, seed=seed, token_types=True) for seed in (0, 1)]


def reconfigured(retention: float) -> torch.nn.Module:
    model = make_tiny("bert", dropout=0.5)
    reconfigure(model, select_learners("random", retention, find_ffn_blocks(model), seed=0))
    return model.train()


def test_largest_inputs_are_those_of_the_frozen_nodes() -> None:
    model = reconfigured(0.25)
    found = largest_inputs(model, BATCHES)
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())
    splits = {name: module for name, module in model.named_modules() if isinstance(module, SplitFfn)}
    assert set(found) == {f"{name}.frozen_out.weight" for name in splits} and len(found) == 2
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


def test_nothing_is_seen_without_batches_or_non_learners() -> None:
    assert largest_inputs(reconfigured(0.25), []) == {}
    assert largest_inputs(reconfigured(1.0), BATCHES) == {}
