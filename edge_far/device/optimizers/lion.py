"""Lion: the sign of a momentum decides each element's step, so one moment is enough."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from edge_far.device.optimizers.base import Chunk, Optimizer, StateArray

__all__ = ["Lion", "LionSettings"]

# x / (|x| + this) is 0 for 0, and exactly 1 or -1 for |x| above 1e-30.
SIGN_GUARD = np.float32(1e-38)


@dataclass(frozen=True, slots=True)
class LionSettings:
    """The constants of Lion, with the paper's defaults; weight decay applies to matrices only."""

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.01


class Lion(Optimizer):
    """Lion (Chen et al., arXiv 2302.06675, algorithm 2): one float32 moment, 4 bytes a parameter.

    Every element moves by the learning rate, so the rate is a third to a tenth of AdamW's (section 5 there).
    """

    name = "lion"
    BUFFERS = 2

    def __init__(
        self,
        parameters: Mapping[str, np.ndarray],
        settings: LionSettings | None = None,
        *,
        no_decay: Collection[str] | None = None,
    ) -> None:
        """Hold on to `parameters` and make their momentum, see Optimizer."""
        self.settings = settings or LionSettings()
        super().__init__(parameters, self.settings.weight_decay, no_decay)

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, StateArray]:
        """Return the momentum."""
        return {"momentum": StateArray(np.float32)}

    def _updater(self, learning_rate: float, scale: float, weight_decay: float) -> Callable[[Chunk], None]:
        settings = self.settings
        beta1, beta2 = np.float32(settings.beta1), np.float32(settings.beta2)
        step_factor = np.float32((1 - settings.beta1) * scale)
        momentum_factor = np.float32((1 - settings.beta2) * scale)
        rate, keep = np.float32(learning_rate), np.float32(1 - learning_rate * weight_decay)

        def update(chunk: Chunk) -> None:
            parameter, gradient, momentum = chunk.parameter, chunk.gradient, chunk.state["momentum"]
            step, scratch = chunk.scratch
            np.multiply(momentum, beta1, out=step)
            np.multiply(gradient, step_factor, out=scratch)
            np.add(step, scratch, out=step)
            np.absolute(step, out=scratch)  # np.sign branches on every element and takes ten times as long
            np.add(scratch, SIGN_GUARD, out=scratch)
            np.divide(step, scratch, out=step)
            np.multiply(step, rate, out=step)
            if keep != 1:
                np.multiply(parameter, keep, out=parameter)
            np.subtract(parameter, step, out=parameter)

            np.multiply(gradient, momentum_factor, out=scratch)
            np.multiply(momentum, beta2, out=momentum)
            np.add(momentum, scratch, out=momentum)

        return update
