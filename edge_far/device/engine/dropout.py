"""Draws dropout masks as packed bits, from (seed, step, micro-batch, node) alone.

A set bit keeps its element. Each bit is set with probability round((1 - p) * 2**16) / 2**16: a random bit string is
combined with the binary digits of the probability, from the last digit to the first, by AND and OR. That costs 16
random bits an element and a few passes over packed words, and no comparison, so masks are cheap even on a small core.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_far.bundles.manifest import Mask
from edge_far.device.engine.backend import DropoutKey

__all__ = ["DIGITS", "draw_mask", "factor_table", "mask_shape"]

DIGITS = 16
_WORD_BYTES = 8
_LOW64 = (1 << 64) - 1


def mask_shape(mask: Mask, batch: int, sequence: int) -> tuple[int, ...]:
    """Return the shape of a mask's bytes for one batch shape."""
    values = {
        "batch": batch,
        "sequence": sequence,
        "sequence/8": sequence // 8,
        "batch*sequence": batch * sequence,
    }
    return tuple(dim if isinstance(dim, int) else values[dim] for dim in mask.shape)


def draw_mask(mask: Mask, node: int, shape: Sequence[int], key: DropoutKey) -> np.ndarray:
    """Return the bytes of the mask of dropout number `node`, uint8 of `shape`."""
    count = math.prod(shape)
    words = -(-count // _WORD_BYTES)
    # Philox is counter-based: the key is the identity of the mask, and no state is carried along.
    generator = np.random.Philox(key=[key.seed & _LOW64, key.step << 32 | key.micro_batch << 16 | node])
    digits = round((1.0 - mask.probability) * (1 << DIGITS))
    kept = np.zeros(words, np.uint64)
    if digits >= 1 << DIGITS:
        return np.full(tuple(shape), 255, np.uint8)
    for position in range(DIGITS):
        bits = generator.random_raw(words)
        if digits >> position & 1:
            np.bitwise_or(kept, bits, out=kept)
        else:
            np.bitwise_and(kept, bits, out=kept)
    return kept.astype("<u8", copy=False).view(np.uint8)[:count].reshape(tuple(shape))


def factor_table(probability: float, *, active: bool) -> np.ndarray:
    """Return float32 [256, 8]: for each byte of a mask, the factors of its eight elements.

    A set bit stands for 1 / (1 - probability), a clear one for 0; without dropout (`active` false) all are 1.
    """
    if not active:
        return np.ones((256, 8), np.float32)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return bits.astype(np.float32) * np.float32(1.0 / (1.0 - probability))
