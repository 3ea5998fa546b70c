"""AdamW whose moments are kept in 8 bits, block by block (Dettmers et al., arXiv 2110.02861): 2.03 bytes a parameter.

What is kept is m and the root r of the second moment, for each block of 256 elements as 8-bit codes and the block's
largest value. The code is quadratic: a code's distance to the next grows with it, so that small values keep about as
many digits as large ones.

    m = sign(a) (a / 127)^2 max|m|       a in -127 ... 127, the nearest
    r = ((b + 1/2) / 255.5)^2 max r      b in 0 ... 255, one of the two nearest

The largest value of a block is kept exactly by both. The paper's dynamic code needs a table look-up an element; this
one needs square roots, which NumPy does several of in that time, and its error on moments of noisy gradients is
smaller (tests/device/optimizers/test_adamw8bit.py compares).

- No code of r means zero. A parameter whose second moment vanished beside its block's largest while its first moment
  did not would take a step of m / epsilon (Li et al., arXiv 2309.01507, section 4.1). Here r is then too large, and
  the step too short.
- r is rounded up or down at random, in proportion to the distances. A step changes the second moment by a
  thousandth, which is less than half a cell: rounded to the nearest it would stay where it is for ever. The random
  numbers follow from the number of the step alone, so a resumed run draws what it would have drawn.

Each step computes with float32 moments and rounds what it keeps. Parameters of fewer than 4,096 elements, biases and
LayerNorms, keep float32 moments, as in the authors' bitsandbytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edge_far.device.optimizers.adamw import AdamW, AdamWFactors
from edge_far.device.optimizers.base import CHUNK, Chunk, StateArray

__all__ = ["BLOCK", "SMALLEST", "AdamW8bit"]

BLOCK = 256
SMALLEST = 4096
FIRST_LEVELS = 127.0
SECOND_LEVELS = 255.5
NOISE_BITS = 12
# Below this a block's largest value counts as this: a quotient by it is still a finite float32.
TINY = np.float32(1e-30)
# Keeps the quotient of sign and size away from 0 / 0; a is 0 far above it.
ROOT_GUARD = np.float32(1e-12)


class AdamW8bit(AdamW):
    """AdamW with the moments of large parameters in 8 bits."""

    name = "adamw8bit"
    BUFFERS = 3
    GRAIN = BLOCK

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, StateArray]:
        """Return codes and the blocks' largest values; for a small parameter, float32 moments."""
        if math.prod(shape) < SMALLEST:
            return AdamW.layout(shape)
        return {
            "first_moment": StateArray(np.int8),
            "first_moment_largest": StateArray(np.float32, BLOCK),
            "second_moment_root": StateArray(np.uint8),
            "second_moment_root_largest": StateArray(np.float32, BLOCK),
        }

    def _updater(self, learning_rate: float, scale: float, weight_decay: float) -> Callable[[Chunk], None]:
        in_float32 = super()._updater(learning_rate, scale, weight_decay)
        factors = self._factors(learning_rate, scale, weight_decay)
        noise = _noise(self.steps)

        def update(chunk: Chunk) -> None:
            if "second_moment" in chunk.state:
                in_float32(chunk)
            else:
                _update(chunk, factors, noise[: chunk.parameter.size])

        return update


def _noise(step: int) -> np.ndarray:
    """Return float32 [CHUNK], even between -1/2 and 1/2, for all chunks of a step.

    12 bits: the largest code plus the largest number must stay below 256 whatever a float32 root is rounded to.
    """
    words = np.random.Philox(key=step).random_raw(-(-CHUNK // 4))
    bits = words.astype("<u8", copy=False).view("<u2")[:CHUNK] >> (16 - NOISE_BITS)
    noise = bits.astype(np.float32)
    noise += np.float32(0.5)
    noise /= np.float32(2**NOISE_BITS)
    noise -= np.float32(0.5)
    return noise


def _update(chunk: Chunk, by: AdamWFactors, noise: np.ndarray) -> None:
    """One chunk: whole blocks, or the last elements of a parameter as one short block."""
    blocks = (-1, min(BLOCK, chunk.parameter.size))
    parameter, gradient = chunk.parameter.reshape(blocks), chunk.gradient.reshape(blocks)
    first, second, scratch = (buffer.reshape(blocks) for buffer in chunk.scratch)
    a, b = chunk.state["first_moment"].reshape(blocks), chunk.state["second_moment_root"].reshape(blocks)
    first_largest = chunk.state["first_moment_largest"].reshape(-1, 1)
    root_largest = chunk.state["second_moment_root_largest"].reshape(-1, 1)

    np.copyto(first, a)
    np.absolute(first, out=scratch)
    np.multiply(first, scratch, out=first)
    np.multiply(first, first_largest * (by.beta1 / np.float32(FIRST_LEVELS**2)), out=first)
    np.multiply(gradient, by.gradient_factor, out=scratch)
    np.add(first, scratch, out=first)

    np.copyto(second, b)
    np.add(second, np.float32(0.5), out=second)
    np.square(second, out=second)
    np.multiply(second, root_largest * (np.sqrt(by.beta2) / np.float32(SECOND_LEVELS**2)), out=second)
    np.square(second, out=second)
    np.multiply(gradient, gradient, out=scratch)
    np.multiply(scratch, by.square_factor, out=scratch)
    np.add(second, scratch, out=second)

    root = np.sqrt(second, out=second)
    np.add(root, by.epsilon, out=scratch)
    np.divide(first, scratch, out=scratch)
    np.multiply(scratch, by.step_size, out=scratch)
    if by.keep != 1:
        np.multiply(parameter, by.keep, out=parameter)
    np.subtract(parameter, scratch, out=parameter)
    _keep_first(first, scratch, a, first_largest)
    _keep_root(root, noise.reshape(blocks), b, root_largest)


def _keep_first(moment: np.ndarray, scratch: np.ndarray, codes: np.ndarray, largest: np.ndarray) -> None:
    """Round the first moment into `codes` and `largest`; `moment` and `scratch` are overwritten."""
    np.absolute(moment, out=scratch)
    np.max(scratch, axis=1, keepdims=True, out=largest)
    np.multiply(moment, np.float32(FIRST_LEVELS**2) / np.maximum(largest, TINY), out=moment)
    np.absolute(moment, out=scratch)
    np.add(scratch, ROOT_GUARD, out=scratch)
    np.sqrt(scratch, out=scratch)
    np.divide(moment, scratch, out=moment)
    np.rint(moment, out=moment)
    np.copyto(codes, moment, casting="unsafe")


def _keep_root(root: np.ndarray, noise: np.ndarray, codes: np.ndarray, largest: np.ndarray) -> None:
    """Round the second moment's root at random into `codes` and `largest`; `root` is overwritten."""
    np.max(root, axis=1, keepdims=True, out=largest)
    np.multiply(root, np.float32(SECOND_LEVELS**2) / np.maximum(largest, TINY), out=root)
    np.sqrt(root, out=root)
    np.add(root, noise, out=root)
    np.copyto(codes, root, casting="unsafe")  # towards zero: codes are cells, b + 1/2 their middle
