"""One text's hidden states as bytes: 8 bits with a scale a token, 16 bits, or as they are.

    int8   [scale float16] * tokens, [int8 * width] * tokens      width + 2 bytes a token
    fp16   [float16 * width] * tokens                             2 width
    fp32   [float32 * width] * tokens                             4 width; exact, and for pooled vectors

All little-endian. A pooled vector counts as one token.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from edge_far.errors import BundleError

__all__ = ["PRECISIONS", "Precision", "decode", "encode", "row_bytes"]

Precision = Literal["int8", "fp16", "fp32"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_LARGEST = 127
_LARGEST_SCALE = np.float16(np.finfo(np.float16).max)
_TYPES = {"fp16": "<f2", "fp32": "<f4"}


def row_bytes(precision: str, tokens: int, width: int) -> int:
    """Return the bytes of a text of so many tokens."""
    each = {"int8": width + 2, "fp16": 2 * width, "fp32": 4 * width}
    return tokens * each[precision]


def encode(hidden: np.ndarray, precision: str) -> bytes:
    """Return float32 [tokens, width] as bytes."""
    if precision != "int8":
        return np.ascontiguousarray(hidden, _TYPES[precision]).tobytes()
    exact = np.abs(hidden).max(axis=1, initial=0.0) / _LARGEST
    with np.errstate(over="ignore"):
        scales = exact.astype(np.float16)
    # Rounded up, so that nothing is clipped; a token of zeros keeps a scale that divides.
    scales = np.where(scales.astype(np.float32) < exact, np.nextafter(scales, np.float16(np.inf)), scales)
    scales = np.clip(scales, np.finfo(np.float16).smallest_subnormal, _LARGEST_SCALE).astype("<f2")
    values = np.rint(hidden / scales.astype(np.float32)[:, None])
    return scales.tobytes() + np.clip(values, -_LARGEST, _LARGEST).astype(np.int8).tobytes()


def decode(data: bytes, precision: str, tokens: int, width: int) -> np.ndarray:
    """Return float32 [tokens, width]; raises BundleError for another number of bytes."""
    if len(data) != row_bytes(precision, tokens, width):
        raise BundleError(f"a cached row has {len(data)} bytes, not {row_bytes(precision, tokens, width)}")
    if precision != "int8":
        return np.frombuffer(data, _TYPES[precision]).reshape(tokens, width).astype(np.float32)
    scales = np.frombuffer(data, "<f2", tokens).astype(np.float32)
    values = np.frombuffer(data, np.int8, tokens * width, 2 * tokens).reshape(tokens, width)
    return values * scales[:, None]
