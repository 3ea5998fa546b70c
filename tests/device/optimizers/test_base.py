"""AdamW against its published equations in float64, and what a resumed run relies on."""

import math

import numpy as np
import pytest

from edge_far.device.optimizers.adamw import AdamW, AdamWSettings
from edge_far.device.optimizers.base import CHUNK, clip_scale, global_norm

SHAPES = {
    "encoder.weight": (3, 5),
    "encoder.bias": (5,),
    "big.weight": (2, CHUNK + 17),
    "none.weight": (0, 4),
}


def arrays(seed: int, size: float = 1.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: (random.standard_normal(shape) * size).astype(np.float32) for name, shape in SHAPES.items()}


def rate(step: int) -> float:
    return 1e-3 * (1 - step / 60)


def oracle(settings: AdamWSettings, steps: int, scale: float) -> dict[str, np.ndarray]:
    """Algorithm 2 of arXiv 1711.05101 in float64, written as in torch's documentation."""
    result = {}
    for name, start in arrays(0).items():
        p = start.astype(np.float64)
        m = np.zeros_like(p)
        v = np.zeros_like(p)
        decay = settings.weight_decay if p.ndim > 1 else 0.0
        for t in range(1, steps + 1):
            g = arrays(t, 1e-2)[name].astype(np.float64) * scale
            lr = rate(t - 1)
            p = p - lr * decay * p
            m = settings.beta1 * m + (1 - settings.beta1) * g
            v = settings.beta2 * v + (1 - settings.beta2) * g**2
            m_hat = m / (1 - settings.beta1**t)
            v_hat = v / (1 - settings.beta2**t)
            p = p - lr * m_hat / (np.sqrt(v_hat) + settings.epsilon)
        result[name] = p
    return result


def trained(settings: AdamWSettings, steps: int, scale: float) -> dict[str, np.ndarray]:
    parameters = arrays(0)
    optimizer = AdamW(parameters, settings)
    for t in range(1, steps + 1):
        optimizer.step(arrays(t, 1e-2), rate(t - 1), scale)
    return parameters


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(
    "settings", [AdamWSettings(), AdamWSettings(beta1=0.8, beta2=0.95, epsilon=1e-3, weight_decay=0.3)]
)
def test_equals_the_equations_in_float64(settings: AdamWSettings, scale: float) -> None:
    expected = oracle(settings, 50, scale)
    for name, parameter in trained(settings, 50, scale).items():
        error = np.linalg.norm(parameter - expected[name])
        assert error <= 1e-6 * np.linalg.norm(expected[name]), name


def test_decay_of_matrices_alone_or_as_told() -> None:
    zero = {"w": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)}
    for no_decay, kept in ((None, {"b"}), (("w",), {"w"}), ((), set())):
        parameters = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
        AdamW(parameters, AdamWSettings(weight_decay=0.5), no_decay=no_decay).step(zero, 0.1)
        for name, parameter in parameters.items():
            assert np.all(parameter == np.float32(1 if name in kept else 0.95)), name


def test_resumed_state_goes_on_bit_for_bit() -> None:
    whole, parts = arrays(0), arrays(0)
    optimizer, first = AdamW(whole), AdamW(parts)
    for t in range(1, 4):
        optimizer.step(arrays(t), rate(t))
        first.step(arrays(t), rate(t))
    saved = {name: array.copy() for name, array in first.state_arrays().items()}
    assert saved["steps"].tolist() == [3]
    second = AdamW(parts)
    for name, array in second.state_arrays().items():
        array[...] = saved[name]
    for t in range(4, 7):
        optimizer.step(arrays(t), rate(t))
        second.step(arrays(t), rate(t))
    assert all(whole[name].tobytes() == parts[name].tobytes() for name in SHAPES)
    assert second.state_arrays()["steps"].tolist() == [6]


def test_gradients_are_not_changed_and_wrong_ones_are_refused() -> None:
    optimizer, gradients = AdamW(arrays(0)), arrays(1)
    optimizer.step(gradients, 1e-3, 0.5)
    assert all(np.array_equal(gradients[name], arrays(1)[name]) for name in SHAPES)
    for wrong, message in (
        ({"encoder.weight": np.zeros((5, 3), np.float32)}, r"is \(5, 3\), not \(3, 5\)"),
        ({"encoder.weight": np.zeros((3, 5))}, "float64, not a C-contiguous float32"),
        ({"encoder.weight": np.zeros((5, 3), np.float32).T}, "not a C-contiguous float32"),
    ):
        with pytest.raises(ValueError, match=message):
            optimizer.step(gradients | wrong, 1e-3)
    with pytest.raises(ValueError, match="not a C-contiguous"):
        AdamW({"w": np.zeros((4, 4), np.float32).T[1:]})
    for scale in (0.0, math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="gradient scale"):
            optimizer.step(gradients, 1e-3, scale)
    assert optimizer.steps == 1


def test_global_norm() -> None:
    """Chunks of 8,192 numbers are added in float32 by BLAS: a few rounding errors of 6e-8, more where all are alike."""
    gradients = arrays(7)
    exact = math.sqrt(math.fsum(float(x) ** 2 for array in gradients.values() for x in array.ravel()))
    assert global_norm(gradients) == pytest.approx(exact, rel=3e-7)
    many = {f"{n}": np.full(200_000, 1e-3, np.float32) for n in range(3)}
    assert global_norm(many) == pytest.approx(1e-3 * math.sqrt(600_000), rel=3e-6)
    assert global_norm({"tiny": np.full(3, 1e-15, np.float32)}) == pytest.approx(math.sqrt(3) * 1e-15, rel=1e-6)
    assert global_norm({"large": np.full(4, 1e18, np.float32)}) == pytest.approx(2e18, rel=1e-6)
    assert global_norm({"beyond": np.full(4, 1e30, np.float32)}) == math.inf
    assert global_norm({}) == 0.0
    assert math.isnan(global_norm({"a": np.array([1, np.nan], np.float32)}))
    assert global_norm({"a": np.array([1, -np.inf], np.float32)}) == math.inf


def test_clip_scale() -> None:
    assert clip_scale(0.5, 1.0) == 1.0
    assert clip_scale(0.0, 1.0) == 1.0
    assert clip_scale(4.0, 1.0) == 1.0 / (4.0 + 1e-6)
    assert clip_scale(math.inf, 1.0) == 0.0
