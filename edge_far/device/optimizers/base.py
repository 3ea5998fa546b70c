"""What all optimisers share: state arrays, work cut into chunks; gradient clipping.

An update reads and writes several arrays as large as the parameters. Done array by array, as torch's foreach
implementations do, each of its passes would go through memory; here all passes work on one chunk that stays in cache
before the next chunk is touched, so temporaries are as large as a chunk. It is one thread's work: two threads take
turns at the interpreter's lock between passes this short, and were slower (docs/lab/performance.md).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

__all__ = ["Chunk", "Optimizer", "StateArray", "clip_scale", "clipped_step", "global_norm"]

CHUNK = 32 * 1024  # elements; chosen with benchmarks/optimizer_step.py
NORM_CHUNK = 8 * 1024  # under 10,000 elements OpenBLAS adds in one thread, so the order of the sum is fixed


@dataclass(frozen=True, slots=True)
class StateArray:
    """One array that an optimiser keeps for a parameter: an entry an element, or one for every `per` elements."""

    dtype: type[np.generic]
    per: int = 1

    def shape(self, parameter: tuple[int, ...]) -> tuple[int, ...]:
        """Return the array's shape for a parameter of this shape."""
        return parameter if self.per == 1 else (-(-math.prod(parameter) // self.per),)

    def bytes(self, parameter: tuple[int, ...]) -> int:
        """Return the array's size for a parameter of this shape."""
        return math.prod(self.shape(parameter)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one update sees: flat views of the same elements, the state by name, and float32 [BUFFERS, elements]."""

    parameter: np.ndarray
    gradient: np.ndarray
    state: Mapping[str, np.ndarray]
    scratch: np.ndarray


class Optimizer(ABC):
    """Updates float32 arrays in place; a subclass says which state it keeps and how one chunk is updated."""

    name: ClassVar[str]
    BUFFERS: ClassVar[int] = 1  # float32 temporaries of a chunk's size
    GRAIN: ClassVar[int] = 1  # a chunk has a multiple of so many elements, or fewer

    def __init__(
        self,
        parameters: Mapping[str, np.ndarray],
        weight_decay: float,
        no_decay: Collection[str] | None,
    ) -> None:
        """Hold on to `parameters` (C-contiguous float32) and make their state.

        `no_decay` names the parameters without weight decay; by default those of fewer than two dimensions,
        which are the biases and the LayerNorms.
        """
        self.parameters = dict(parameters)
        self.weight_decay = weight_decay
        if no_decay is None:
            no_decay = [name for name, array in self.parameters.items() if array.ndim < 2]
        self.no_decay = frozenset(no_decay)
        self._flat = {name: _flat(name, array) for name, array in self.parameters.items()}
        self._layouts = {name: self.layout(array.shape) for name, array in self.parameters.items()}
        self._steps = np.zeros(1, np.int64)
        self._state = {
            name: {key: np.zeros(one.shape(self.parameters[name].shape), one.dtype) for key, one in layout.items()}
            for name, layout in self._layouts.items()
        }
        self._scratch = np.empty((self.BUFFERS, CHUNK), np.float32)

    @classmethod
    @abstractmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, StateArray]:
        """Return the arrays that are kept for a parameter of this shape, by name."""

    @abstractmethod
    def _updater(self, learning_rate: float, scale: float, weight_decay: float) -> Callable[[Chunk], None]:
        """Return the update of this step, `self.steps` counting it already; gradients are to be times `scale`."""

    @property
    def steps(self) -> int:
        """Return how many steps were done."""
        return int(self._steps[0])

    def step(self, gradients: Mapping[str, np.ndarray], learning_rate: float, scale: float = 1.0) -> None:
        """Update every parameter with its gradient times `scale`, a positive finite number.

        `gradients` has a C-contiguous float32 array for every parameter; it is not changed.
        """
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"gradient scale is {scale}: check the norm before the step")
        for name, parameter in self.parameters.items():
            if gradients[name].shape != parameter.shape:
                raise ValueError(f"gradient of {name} is {gradients[name].shape}, not {parameter.shape}")
            _flat(name, gradients[name])
        self._steps += 1
        decayed = self._updater(learning_rate, scale, self.weight_decay)
        plain = self._updater(learning_rate, scale, 0.0)
        for name, parameter in self._flat.items():
            update = plain if name in self.no_decay else decayed
            gradient = _flat(name, gradients[name])
            for start, stop in _cut(parameter.size, self.GRAIN):
                update(self._chunk(name, parameter, gradient, start, stop))

    def state_arrays(self) -> dict[str, np.ndarray]:
        """Return the state to checkpoint: `steps` [1] and KEY/PARAMETER; the arrays themselves, to write or to fill."""
        arrays = {f"{key}/{name}": array for name, state in self._state.items() for key, array in state.items()}
        return {"steps": self._steps, **arrays}

    def _chunk(self, name: str, parameter: np.ndarray, gradient: np.ndarray, start: int, stop: int) -> Chunk:
        state = {
            key: self._state[name][key].reshape(-1)[start // one.per : -(-stop // one.per)]
            for key, one in self._layouts[name].items()
        }
        return Chunk(parameter[start:stop], gradient[start:stop], state, self._scratch[:, : stop - start])


def global_norm(gradients: Mapping[str, np.ndarray]) -> float:
    """Return the L2 norm of all gradients: chunks are added in float32, their sums in float64 in the mapping's order.

    It is infinite where a gradient's square is beyond float32 (1.8e19), which no run that converges comes near.
    """
    total = 0.0
    with np.errstate(over="ignore"):
        for name, gradient in gradients.items():
            flat = _flat(name, gradient)
            for start in range(0, flat.size, NORM_CHUNK):
                part = flat[start : start + NORM_CHUNK]
                total += float(np.dot(part, part))
    return math.sqrt(total)


def clip_scale(norm: float, max_norm: float) -> float:
    """Return the factor torch.nn.utils.clip_grad_norm_ multiplies gradients with; 0 for an infinite norm."""
    return min(1.0, max_norm / (norm + 1e-6))


def clipped_step(
    optimizer: Optimizer,
    gradients: Mapping[str, np.ndarray],
    learning_rate: float,
    clip_norm: float,
    norm: float | None = None,
) -> None:
    """Do all that stands between two batches: clip by the global norm (`norm` where it is known), update, clear."""
    found = global_norm(gradients) if norm is None else norm
    optimizer.step(gradients, learning_rate, clip_scale(found, clip_norm))
    for gradient in gradients.values():
        gradient.fill(0.0)


def _flat(name: str, array: np.ndarray) -> np.ndarray:
    """Return a flat view; a copy would be updated instead of the parameter, so it is refused."""
    if array.dtype != np.float32 or not array.flags.c_contiguous:
        raise ValueError(f"{name} is {array.dtype}, not a C-contiguous float32 array")
    return array.reshape(-1)


def _cut(size: int, grain: int) -> list[tuple[int, int]]:
    """Return chunks that are multiples of `grain`; what is left over at the end is a chunk of its own."""
    whole = size - size % grain
    bounds = [*range(0, whole, CHUNK), whole, size]
    return [(start, stop) for start, stop in pairwise(bounds) if stop > start]
