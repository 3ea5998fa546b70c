"""8-bit AdamW against its formulas written plainly, against AdamW, and against the code of the paper it follows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_far.device.optimizers.adamw import AdamW, AdamWSettings
from edge_far.device.optimizers.adamw8bit import BLOCK, SMALLEST, AdamW8bit
from edge_far.device.optimizers.base import CHUNK

SHAPES = {
    "one.weight": (16, BLOCK),
    "ragged.weight": (3, CHUNK // 2 + 77),  # more than one chunk, and a short block at the end
    "exact.bias": (SMALLEST,),
    "small.weight": (SMALLEST - 1, 1),
    "none.weight": (0, 4),
}
SETTINGS = AdamWSettings(weight_decay=0.1)
RATE = 1e-3
# What each value of a code stands for, as shares of the block's largest.
FIRST = np.array([math.copysign((a / 127) ** 2, a) for a in range(-127, 128)])
ROOT = np.array([((b + 0.5) / 255.5) ** 2 for b in range(256)])


def arrays(seed: int, size: float = 1.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: (random.standard_normal(shape) * size).astype(np.float32) for name, shape in SHAPES.items()}


def gradients(seed: int) -> dict[str, np.ndarray]:
    """Return gradients whose sizes differ by orders of magnitude from element to element, as real ones do."""
    scale = {name: np.exp(array) for name, array in arrays(1000).items()}
    return {name: array * scale[name] for name, array in arrays(seed, 1e-2).items()}


def blocks(array: np.ndarray) -> list[np.ndarray]:
    flat = array.ravel()
    return [flat[start : start + BLOCK] for start in range(0, flat.size, BLOCK)]


def moments(state: dict[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the first moment and the root of the second that a state stands for, in float64."""
    shares = FIRST[state[f"first_moment/{name}"].ravel().astype(int) + 127]
    roots = ROOT[state[f"second_moment_root/{name}"].ravel()]
    largest = [
        np.repeat(state[f"{key}/{name}"].astype(np.float64), BLOCK)[: shares.size]
        for key in ("first_moment_largest", "second_moment_root_largest")
    ]
    return shares * largest[0], roots * largest[1]


def copied(optimizer: AdamW8bit) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in optimizer.state_arrays().items()}


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_every_step_equals_the_formulas_in_float64(scale: float) -> None:
    parameters = arrays(0)
    optimizer = AdamW8bit(parameters, SETTINGS)
    large = [name for name, array in parameters.items() if array.size >= SMALLEST]
    assert large == ["one.weight", "ragged.weight", "exact.bias"]
    for step in range(1, 31):
        before = {name: array.astype(np.float64) for name, array in parameters.items()}
        state = copied(optimizer)
        given = gradients(step)
        optimizer.step(given, RATE, scale)
        after = copied(optimizer)
        for name in large:
            m, r = moments(state, name)
            g = given[name].astype(np.float64).ravel() * scale
            m = SETTINGS.beta1 * m + (1 - SETTINGS.beta1) * g
            v = SETTINGS.beta2 * r**2 + (1 - SETTINGS.beta2) * g**2
            m_hat, v_hat = m / (1 - SETTINGS.beta1**step), v / (1 - SETTINGS.beta2**step)
            decay = SETTINGS.weight_decay if parameters[name].ndim > 1 else 0.0
            moved = -RATE * m_hat / (np.sqrt(v_hat) + SETTINGS.epsilon)
            expected = before[name].ravel() * (1 - RATE * decay) + moved
            error = np.linalg.norm(parameters[name].ravel() - expected)
            assert error <= 1e-5 * np.linalg.norm(moved) + 1e-7 * np.linalg.norm(expected), (name, step)
            kept = moments(after, name)
            first = np.concatenate([_cells_off(*pair, FIRST) for pair in zip(blocks(kept[0]), blocks(m), strict=True)])
            root = zip(blocks(kept[1]), blocks(np.sqrt(v)), strict=True)
            second = np.concatenate([_cells_off(*pair, ROOT) for pair in root])
            assert np.abs(first).max() <= 0.5 + 1e-3
            assert np.abs(second).max() <= 1 + 1e-3
            assert abs(second.mean()) < 4 * 0.5 / math.sqrt(second.size), "no tendency up or down"


def _cells_off(ours: np.ndarray, wanted: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Return by how many cells a block is off; codes are evenly spaced in the root of the share of the largest."""
    largest = np.abs(wanted).max()
    root = lambda x: np.copysign(np.sqrt(np.abs(x)), x)  # noqa: E731
    peak = np.abs(wanted).argmax()
    assert ours[peak] == pytest.approx(wanted[peak], rel=1e-6), "the largest of a block is kept exactly"
    return np.asarray((root(ours / largest) - root(wanted / largest)) / np.diff(root(code)).max())


def test_no_code_of_the_root_is_zero_unless_the_block_is() -> None:
    parameters = {"w": np.zeros((2, SMALLEST), np.float32)}
    optimizer = AdamW8bit(parameters)
    given = np.zeros((2, SMALLEST), np.float32)
    given[1, 0] = 1.0
    optimizer.step({"w": given}, RATE)
    _, root = moments(copied(optimizer), "w")
    alone = root.reshape(2, -1)[1, :BLOCK]
    assert np.all(alone > 0) and alone[0] == pytest.approx(math.sqrt(1e-3)) and np.all(alone[1:] < 1e-5 * alone[0])
    assert np.count_nonzero(root) == BLOCK
    assert np.count_nonzero(parameters["w"]) == 1, "where there never was a gradient nothing moves"


@pytest.mark.parametrize("small", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
def test_beside_a_gradient_that_was_large_once_steps_are_no_longer_than_in_float32(small: float) -> None:
    """One spike a block coarsens the second moments of all others, here of equal gradients, for hundreds of steps.

    A code of zero would give steps of m / epsilon; rounding to the nearest would hold the second moment at its first
    value, and 400 steps later give steps several times too long. A single weight may wander by a small factor, where
    its second moment lies on the lowest codes; on average steps are right, or shorter where there is no lower code.
    """
    gradient = np.full((1, SMALLEST), small, np.float32)
    ours, exact = (np.zeros((1, SMALLEST), np.float32) for _ in range(2))
    optimizers = AdamW8bit({"w": ours}), AdamW({"w": exact})
    for step in range(400):
        gradient[0, ::BLOCK] = 1.0 if step == 0 else small
        for optimizer in optimizers:
            optimizer.step({"w": gradient}, RATE)
    quiet = np.arange(SMALLEST) % BLOCK != 0
    ratio = ours[0, quiet] / exact[0, quiet]
    assert ratio.min() > 0 and ratio.max() < 4
    assert ratio.mean() < 1.05
    if small >= 1e-4:
        assert ratio.mean() > 0.9


def test_small_parameters_keep_float32_moments_and_every_byte_of_adamw() -> None:
    ours, exact = arrays(0), arrays(0)
    for optimizer in (AdamW8bit(ours, SETTINGS), AdamW(exact, SETTINGS)):
        for step in range(1, 6):
            optimizer.step(gradients(step), RATE)
    for name in SHAPES:
        assert (ours[name].tobytes() == exact[name].tobytes()) == (ours[name].size < SMALLEST), name


def test_state_is_two_bytes_a_number_and_eight_a_block() -> None:
    optimizer = AdamW8bit({"w": np.zeros((64, 4 * BLOCK), np.float32)})
    state = {name: array for name, array in optimizer.state_arrays().items() if name != "steps"}
    assert sum(array.nbytes for array in state.values()) == 64 * 4 * BLOCK * 2 + 64 * 4 * 8
    assert {array.dtype.name for array in state.values()} == {"int8", "uint8", "float32"}


def dynamic_code(signed: bool) -> np.ndarray:
    """Return the 256 values of arXiv 2110.02861's dynamic code: an exponent of ten, and what bits are left linear."""
    values = [0.0, 1.0]
    for exponent in range(7):
        cells = np.linspace(0.1, 1.0, 2 ** (exponent if signed else exponent + 1) + 1)
        middles = (cells[:-1] + cells[1:]) / 2 * 10.0 ** (exponent - 6)
        values += [*middles, *(-middles if signed else [])]
    return np.sort(values)


def nearest(code: np.ndarray, array: np.ndarray) -> np.ndarray:
    largest = np.abs(array.reshape(-1, BLOCK)).max(axis=1, keepdims=True)
    found = code[np.searchsorted((code[1:] + code[:-1]) / 2, array.reshape(-1, BLOCK) / largest)]
    return np.asarray(found * largest).reshape(array.shape)


def test_steps_are_nearer_to_adamw_than_with_the_dynamic_code_of_the_paper() -> None:
    """400 steps of noisy gradients whose sizes differ within a block; measured is the last step of each."""
    shape = (16, 2 * BLOCK)
    random = np.random.default_rng(5)
    size = np.exp(random.standard_normal(shape)) * 1e-3
    ours, exact = ({"w": np.zeros(shape, np.float32)} for _ in range(2))
    optimizers = AdamW8bit(ours, AdamWSettings(weight_decay=0)), AdamW(exact, AdamWSettings(weight_decay=0))
    signed, unsigned = dynamic_code(True), dynamic_code(False)
    assert len(signed) == len(unsigned) == 256
    m, v = np.zeros(shape), np.zeros(shape)
    last: list[np.ndarray] = []
    for step in range(1, 401):
        g = (size * (random.standard_normal(shape) + 0.2)).astype(np.float32)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.astype(np.float64) ** 2
        before = [array["w"].copy() for array in (ours, exact)]
        for optimizer in optimizers:
            optimizer.step({"w": g}, 1.0)
        last = [array["w"] - was for array, was in zip((ours, exact), before, strict=True)]
        with np.errstate(divide="ignore", invalid="ignore"):
            last.append(-m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8))
        m, v = nearest(signed, m), nearest(unsigned, v)
    error = [np.linalg.norm(one - last[1]) / np.linalg.norm(last[1]) for one in (last[0], last[2])]
    assert error[0] < 0.15
    assert error[0] < error[1]


def test_logistic_regression_ends_where_adamw_ends() -> None:
    """Rounding changes single steps by some percent; near the optimum of a convex loss it must not matter.

    The tolerance is a hundredth of what training gains over a guess.
    """
    random = np.random.default_rng(3)
    features = random.standard_normal((512, 64)).astype(np.float32)
    true = random.standard_normal((64, 80)).astype(np.float32)
    labels = (features @ true + 2 * random.gumbel(size=(512, 80))).argmax(axis=1)

    def loss_and_gradient(weight: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ weight
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        loss = -float(np.log(p[np.arange(512), labels]).mean())
        p[np.arange(512), labels] -= 1
        return loss, (features.T @ p / 512).astype(np.float32)

    losses = {}
    for kind in (AdamW, AdamW8bit):
        weight = np.zeros((64, 80), np.float32)
        optimizer = kind({"w": weight}, AdamWSettings(weight_decay=0.1))
        for step in range(300):
            _, gradient = loss_and_gradient(weight)
            optimizer.step({"w": gradient}, 0.03 * (1 - step / 300))
        losses[kind.name] = loss_and_gradient(weight)[0]
    gained = math.log(80) - losses["adamw"]
    assert gained > 2
    assert abs(losses["adamw8bit"] - losses["adamw"]) < 0.01 * gained
