"""Hidden states as bytes: exact, 16 bits, and 8 bits with a scale a token."""

from __future__ import annotations

import numpy as np
import pytest

from edge_far.device.cache.rows import PRECISIONS, decode, encode, row_bytes
from edge_far.errors import BundleError


def hidden(tokens: int = 7, width: int = 48, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal((tokens, width)) * scale).astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e4])
def test_bytes_and_back(precision: str, scale: float) -> None:
    """The error of 8 bits is at most half a step of the token's scale; float16 has 11 bits, and none below 6e-8."""
    values = hidden(scale=scale)
    data = encode(values, precision)
    assert len(data) == row_bytes(precision, 7, 48)
    found = decode(data, precision, 7, 48)
    assert found.dtype == np.float32
    if precision == "fp32":
        np.testing.assert_array_equal(found, values)
    elif precision == "fp16":
        np.testing.assert_allclose(found, values, rtol=2**-11, atol=2**-25)
    else:
        step = np.abs(values).max(axis=1, keepdims=True) / 127 * (1 + 2**-10) + 6e-8
        assert (np.abs(found - values) <= step / 2 * (1 + 1e-6)).all()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_read_is_written_again_as_the_same_bytes(precision: str) -> None:
    data = encode(hidden(), precision)
    assert encode(decode(data, precision, 7, 48), precision) == data


def test_zeros_and_single_large_values() -> None:
    values = np.zeros((2, 16), np.float32)
    values[1, 3] = 300.0
    found = decode(encode(values, "int8"), "int8", 2, 16)
    np.testing.assert_array_equal(found[0], 0)
    assert found[1, 3] == pytest.approx(300, rel=1e-3)
    np.testing.assert_array_equal(np.delete(found[1], 3), 0)


def test_another_number_of_bytes_is_refused() -> None:
    with pytest.raises(BundleError, match="has 349 bytes, not 350"):
        decode(encode(hidden(), "int8")[:-1], "int8", 7, 48)
