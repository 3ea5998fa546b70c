"""What every optimiser promises, and Lion against its published equations in float64."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays_into, write_arrays
from edge_far.device.optimizers.base import CHUNK, Optimizer, global_norm
from edge_far.device.optimizers.lion import Lion, LionSettings
from edge_far.device.optimizers.registry import DEFAULT_OPTIMIZER, OPTIMIZERS, RATE_ADVICE, make_optimizer, state_bytes
from edge_far.profile.run_sections import Training
from edge_far.profile.schema import settings_of

SHAPES = {
    "encoder.weight": (3, 5),
    "encoder.bias": (5,),
    "big.weight": (3, CHUNK + 17),
    "none.weight": (0, 4),
}
KINDS = pytest.mark.parametrize("kind", OPTIMIZERS)


def arrays(seed: int, size: float = 1.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: (random.standard_normal(shape) * size).astype(np.float32) for name, shape in SHAPES.items()}


def made(kind: str, parameters: dict[str, np.ndarray], weight_decay: float = 0.1) -> Optimizer:
    return make_optimizer(kind, parameters, weight_decay=weight_decay, no_decay={"encoder.bias"})


def trained(kind: str, steps: range) -> dict[str, np.ndarray]:
    parameters = arrays(0)
    optimizer = made(kind, parameters)
    for step in steps:
        optimizer.step(arrays(step, 1e-2), 1e-3, 0.7)
    return parameters


def test_names_are_those_of_the_profile() -> None:
    _, field = settings_of(Training)["optimizer"]
    assert field.choices == tuple(OPTIMIZERS) and Training().optimizer == DEFAULT_OPTIMIZER
    assert RATE_ADVICE.keys() <= OPTIMIZERS.keys()


@KINDS
def test_names_make_what_they_say(kind: str) -> None:
    optimizer = made(kind, arrays(0), weight_decay=0.25)
    assert type(optimizer) is OPTIMIZERS[kind] and optimizer.name == kind
    assert optimizer.weight_decay == 0.25 and optimizer.no_decay == {"encoder.bias"}


@KINDS
def test_checkpointed_state_goes_on_bit_for_bit(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "optimizer.safetensors"
    parameters = arrays(0)
    first = made(kind, parameters)
    for step in range(1, 4):
        first.step(arrays(step, 1e-2), 1e-3, 0.7)
    write_arrays(path, first.state_arrays())
    second = made(kind, parameters)
    read_arrays_into(path, second.state_arrays())
    assert second.steps == 3
    for step in range(4, 7):
        second.step(arrays(step, 1e-2), 1e-3, 0.7)
    whole = trained(kind, range(1, 7))
    assert all(whole[name].tobytes() == parameters[name].tobytes() for name in SHAPES)


@KINDS
def test_predicted_state_is_what_the_arrays_take(kind: str) -> None:
    state = made(kind, arrays(0)).state_arrays()
    assert state.pop("steps").nbytes == 8
    assert state_bytes(kind, SHAPES.values()) == sum(array.nbytes for array in state.values())


def test_state_of_a_large_matrix() -> None:
    numbers = 4096 * 768
    sizes = {kind: state_bytes(kind, [(4096, 768)]) / numbers for kind in OPTIMIZERS}
    assert sizes == {"adamw": 8, "adamw8bit": 2 + 8 / 256, "lion": 4, "sgd": 4}


@KINDS
def test_temporaries_are_as_large_as_a_chunk(kind: str) -> None:
    parameters = {"w": np.ones((2048, 2048), np.float32)}
    gradients = {"w": np.ones((2048, 2048), np.float32)}
    optimizer = made(kind, parameters)
    optimizer.step(gradients, 1e-3)
    tracemalloc.start()
    try:
        optimizer.step(gradients, 1e-3, 0.5)
        global_norm(gradients)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 4 * 4 * CHUNK, f"{taken} bytes in a step over {parameters['w'].nbytes}"


@KINDS
def test_without_a_gradient_only_decay_moves(kind: str) -> None:
    zero = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    parameters = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    made(kind, parameters, weight_decay=0.5).step(zero, 0.1)
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(parameter, np.float32(1 if name == "encoder.bias" else 0.95))


@pytest.mark.parametrize("settings", [LionSettings(), LionSettings(beta1=0.8, beta2=0.95, weight_decay=0.3)])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_lion_equals_the_equations_in_float64(settings: LionSettings, scale: float) -> None:
    """Algorithm 2 of arXiv 2302.06675.

    Where beta1 m and (1 - beta1) g all but cancel, float32 may see the other sign: there the weight may differ by
    the two steps that it then differs by, and it does in few places.
    """
    parameters = arrays(0)
    optimizer = Lion(parameters, settings)
    steps = 40
    gradients = [{name: array * scale for name, array in arrays(t, 1e-2).items()} for t in range(1, steps + 1)]
    for t in range(1, steps + 1):
        optimizer.step(arrays(t, 1e-2), 1e-3, scale)
    for name, start in arrays(0).items():
        p, m = start.astype(np.float64), np.zeros(start.shape)
        decay = settings.weight_decay if p.ndim > 1 else 0.0
        for given in gradients:
            g = given[name].astype(np.float64)
            p -= 1e-3 * (np.sign(settings.beta1 * m + (1 - settings.beta1) * g) + decay * p)
            m = settings.beta2 * m + (1 - settings.beta2) * g
        off = np.abs(parameters[name] - p) > 1e-5 * (1 + np.abs(p))  # a hundredth of a step
        assert off.sum() <= 1e-4 * off.size, name
        assert np.all(np.abs(parameters[name] - p) <= 2.1e-3), name
        np.testing.assert_allclose(optimizer.state_arrays()[f"momentum/{name}"], m, rtol=1e-5, atol=1e-8)
