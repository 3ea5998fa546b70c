"""AdamW, SGD and clipping against torch.optim.AdamW, torch.optim.SGD and torch.nn.utils.clip_grad_norm_."""

import numpy as np
import pytest

from edge_far.device.optimizers.adamw import AdamW, AdamWSettings
from edge_far.device.optimizers.base import CHUNK, clip_scale, global_norm
from edge_far.device.optimizers.sgd import Sgd, SgdSettings
from edge_far.learning_rate import WarmupLinear

pytestmark = pytest.mark.host

SHAPES = {"weight": (7, 5), "bias": (5,), "big.weight": (3, CHUNK)}
STEPS = 50


@pytest.mark.parametrize("max_norm", [1.0, 1e6])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.2])
def test_fifty_steps(weight_decay: float, max_norm: float) -> None:
    import torch

    random = np.random.default_rng(0)
    start = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    ours = {name: array.copy() for name, array in start.items()}
    theirs = {name: torch.nn.Parameter(torch.from_numpy(array.copy())) for name, array in start.items()}
    groups = [
        {"params": [p for p in theirs.values() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in theirs.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    oracle = torch.optim.AdamW(groups, lr=1e-3, foreach=True)
    optimizer = AdamW(ours, AdamWSettings(weight_decay=weight_decay))
    schedule = WarmupLinear(1e-3, 5, STEPS)
    for step in range(STEPS):
        scale = 10.0 ** random.uniform(-6, 0)
        gradients = {name: (random.standard_normal(shape) * scale).astype(np.float32) for name, shape in SHAPES.items()}
        for name, parameter in theirs.items():
            parameter.grad = torch.from_numpy(gradients[name].copy())
        expected = torch.nn.utils.clip_grad_norm_(theirs.values(), max_norm).item()
        norm = global_norm(gradients)
        assert norm == pytest.approx(expected, rel=1e-6)
        for group in oracle.param_groups:
            group["lr"] = schedule(step)
        oracle.step()
        optimizer.step(gradients, schedule(step), clip_scale(norm, max_norm))
        for name, parameter in theirs.items():
            expected_value = parameter.detach().numpy()
            error = np.linalg.norm(ours[name] - expected_value) / np.linalg.norm(expected_value)
            assert error <= 1e-6, (name, step)
    for name, parameter in theirs.items():
        moved = np.linalg.norm(parameter.detach().numpy() - start[name])
        error = np.linalg.norm(ours[name] - parameter.detach().numpy())
        assert error <= 1e-4 * moved, name  # of what training changed, not only of the weights
        state = optimizer.state_arrays()
        for key, field in (("first_moment", "exp_avg"), ("second_moment", "exp_avg_sq")):
            moment = oracle.state[parameter][field].numpy()
            np.testing.assert_allclose(state[f"{key}/{name}"], moment, rtol=1e-5, atol=1e-6 * np.abs(moment).max())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_fifty_steps_of_sgd(weight_decay: float, momentum: float) -> None:
    import torch

    random = np.random.default_rng(1)
    start = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    ours = {name: array.copy() for name, array in start.items()}
    theirs = {name: torch.nn.Parameter(torch.from_numpy(array.copy())) for name, array in start.items()}
    groups = [
        {"params": [p for p in theirs.values() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in theirs.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    oracle = torch.optim.SGD(groups, lr=0.1, momentum=momentum)
    optimizer = Sgd(ours, SgdSettings(momentum=momentum, weight_decay=weight_decay))
    schedule = WarmupLinear(0.1, 5, STEPS)
    for step in range(STEPS):
        scale = 10.0 ** random.uniform(-3, 0)
        gradients = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
        for name, parameter in theirs.items():
            parameter.grad = torch.from_numpy(gradients[name] * np.float32(scale))
        for group in oracle.param_groups:
            group["lr"] = schedule(step)
        oracle.step()
        optimizer.step(gradients, schedule(step), scale)
    for name, parameter in theirs.items():
        expected = parameter.detach().numpy()
        moved = np.linalg.norm(expected - start[name])
        assert moved > 0
        assert np.linalg.norm(ours[name] - expected) <= 1e-6 * (moved + np.linalg.norm(expected)), name
        if momentum:
            buffer = oracle.state[parameter]["momentum_buffer"].numpy()
            found = optimizer.state_arrays()[f"momentum/{name}"]
            np.testing.assert_allclose(found, buffer, rtol=1e-5, atol=1e-6 * np.abs(buffer).max())
