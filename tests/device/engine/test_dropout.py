"""Dropout masks: the same for the same key, independent for any other, and dropped as often as asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge_far.bundles.manifest import Mask
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.dropout import DIGITS, draw_mask, factor_table, mask_shape

KEY = DropoutKey(seed=3, step=5, micro_batch=2)
BITS = 1 << 18


def make_mask(probability: float = 0.1) -> Mask:
    return Mask("dropout.0", ("batch*sequence", 4), probability, "dropout.factors.0.1")


def draw_bits(probability: float = 0.1, node: int = 0, key: DropoutKey = KEY) -> np.ndarray:
    drawn = draw_mask(make_mask(probability), node, (BITS // 8,), key)
    return np.unpackbits(drawn, bitorder="little")


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.2, 0.3, 0.5, 0.9])
def test_elements_are_kept_with_the_probability_asked_for(probability: float) -> None:
    kept = draw_bits(probability).mean()
    deviation = np.sqrt(probability * (1 - probability) / BITS)
    assert abs(kept - (1 - probability)) < 5 * deviation + 2.0**-DIGITS


def test_extreme_probabilities() -> None:
    assert draw_bits(0.0).all()
    assert draw_bits(1e-9).all(), "rounds to no dropout at all"
    assert not draw_bits(1.0).any()


def test_each_bit_of_a_byte_is_kept_as_often() -> None:
    kept = draw_bits(0.1).reshape(-1, 64).mean(axis=0)
    assert np.abs(kept - 0.9).max() < 5 * np.sqrt(0.09 / (BITS / 64))


def test_the_same_key_gives_the_same_mask() -> None:
    first = draw_mask(make_mask(), 1, (6, 4), KEY)
    assert first.dtype == np.uint8 and first.shape == (6, 4)
    np.testing.assert_array_equal(first, draw_mask(make_mask(), 1, (6, 4), DropoutKey(3, 5, 2)))


def test_known_bytes() -> None:
    """Pins the masks: a resumed run, on any machine and NumPy, must see those of the run it continues."""
    assert draw_mask(make_mask(), 1, (12,), KEY).tolist() == [235, 247, 255, 221, 253, 255, 223, 246, 94, 253, 127, 255]


def test_a_shorter_mask_begins_like_a_longer_one_of_whole_words() -> None:
    shapes = [(1,), (7,), (9, 3), (2, 3, 5)]
    assert [draw_mask(make_mask(), 0, shape, KEY).shape for shape in shapes] == shapes


def test_neighbouring_keys_give_independent_masks() -> None:
    """Pairwise correlations of masks that differ by one in seed, step, micro-batch or node are those of chance."""
    keys = [
        (0, KEY),
        (1, KEY),
        (0, DropoutKey(4, 5, 2)),
        (0, DropoutKey(3, 6, 2)),
        (0, DropoutKey(3, 5, 3)),
        (2, DropoutKey(3, 5, 1)),
    ]
    drawn = [draw_bits(0.5, node, key).astype(np.float64) for node, key in keys]
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(drawn, 2)]
    assert np.abs(correlations).max() < 5 / np.sqrt(BITS)


def test_neighbouring_elements_are_independent() -> None:
    bits = draw_bits(0.5).astype(np.float64)
    for lag in (1, 7, 8, 64):
        assert abs(np.corrcoef(bits[:-lag], bits[lag:])[0, 1]) < 5 / np.sqrt(BITS)


def test_factor_table_gives_each_byte_the_factors_of_its_bits() -> None:
    table = factor_table(0.2, active=True)
    assert table.shape == (256, 8) and table.dtype == np.float32
    for byte in range(256):
        expected = [np.float32(1.25) if byte >> bit & 1 else 0.0 for bit in range(8)]
        np.testing.assert_array_equal(table[byte], np.array(expected, np.float32))
    np.testing.assert_array_equal(factor_table(0.2, active=False), np.ones((256, 8)))


def test_dropout_keeps_the_expected_value() -> None:
    table = factor_table(0.1, active=True)
    factors = table[draw_mask(make_mask(), 0, (BITS // 8,), KEY)]
    assert abs(factors.mean() - 1) < 5 * np.sqrt(0.1 / 0.9 / BITS)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (("batch*sequence", 4), (48, 4)),
        (("batch", 12), (3, 12)),
        (("batch", 4, "sequence", "sequence/8"), (3, 4, 16, 2)),
        (("batch", 4, 1, "sequence/8"), (3, 4, 1, 2)),
    ],
)
def test_mask_shape(shape: tuple[int | str, ...], expected: tuple[int, ...]) -> None:
    assert mask_shape(Mask("dropout.0", shape, 0.1, "f"), 3, 16) == expected
