"""AdamW in NumPy, with the same updates as torch.optim.AdamW."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from edge_far.device.optimizers.base import Chunk, Optimizer, StateArray

__all__ = ["AdamW", "AdamWFactors", "AdamWSettings"]


@dataclass(frozen=True, slots=True)
class AdamWSettings:
    """The constants of AdamW, with torch's defaults; weight decay applies to matrices only."""

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01


@dataclass(frozen=True, slots=True)
class AdamWFactors:
    """The factors of one optimiser step, bias correction and gradient scale folded in."""

    beta1: np.float32
    beta2: np.float32
    gradient_factor: np.float32
    square_factor: np.float32
    epsilon: np.float32
    step_size: np.float32
    keep: np.float32


class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101): two float32 moments, 8 bytes a parameter."""

    name = "adamw"

    def __init__(
        self,
        parameters: Mapping[str, np.ndarray],
        settings: AdamWSettings | None = None,
        *,
        no_decay: Collection[str] | None = None,
    ) -> None:
        """Hold on to `parameters` and make their moments, see Optimizer."""
        self.settings = settings or AdamWSettings()
        super().__init__(parameters, self.settings.weight_decay, no_decay)

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, StateArray]:
        """Return both moments."""
        return {"first_moment": StateArray(np.float32), "second_moment": StateArray(np.float32)}

    def _updater(self, learning_rate: float, scale: float, weight_decay: float) -> Callable[[Chunk], None]:
        factors = self._factors(learning_rate, scale, weight_decay)
        return lambda chunk: _update(chunk, factors)

    def _factors(self, learning_rate: float, scale: float, weight_decay: float) -> AdamWFactors:
        """Torch has p -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps); sqrt(c2) is moved to the factors."""
        settings = self.settings
        correction1 = 1 - settings.beta1**self.steps
        root2 = math.sqrt(1 - settings.beta2**self.steps)
        return AdamWFactors(
            beta1=np.float32(settings.beta1),
            beta2=np.float32(settings.beta2),
            gradient_factor=np.float32((1 - settings.beta1) * scale),
            square_factor=np.float32((1 - settings.beta2) * scale * scale),
            epsilon=np.float32(settings.epsilon * root2),
            step_size=np.float32(learning_rate * root2 / correction1),
            keep=np.float32(1 - learning_rate * weight_decay),
        )


def _update(chunk: Chunk, by: AdamWFactors) -> None:
    parameter, gradient, scratch = chunk.parameter, chunk.gradient, chunk.scratch[0]
    first, second = chunk.state["first_moment"], chunk.state["second_moment"]
    np.multiply(gradient, by.gradient_factor, out=scratch)
    np.multiply(first, by.beta1, out=first)
    np.add(first, scratch, out=first)

    np.multiply(gradient, gradient, out=scratch)
    np.multiply(scratch, by.square_factor, out=scratch)
    np.multiply(second, by.beta2, out=second)
    np.add(second, scratch, out=second)

    np.sqrt(second, out=scratch)
    np.add(scratch, by.epsilon, out=scratch)
    np.divide(first, scratch, out=scratch)
    np.multiply(scratch, by.step_size, out=scratch)
    if by.keep != 1:
        np.multiply(parameter, by.keep, out=parameter)
    np.subtract(parameter, scratch, out=parameter)
