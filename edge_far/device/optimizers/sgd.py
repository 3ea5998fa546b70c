"""SGD with momentum in NumPy, with the same updates as torch.optim.SGD."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from edge_far.device.optimizers.base import Chunk, Optimizer, StateArray

__all__ = ["Sgd", "SgdSettings"]


@dataclass(frozen=True, slots=True)
class SgdSettings:
    """The constants of SGD; weight decay applies to matrices only and is part of the gradient, as in torch."""

    momentum: float = 0.9
    weight_decay: float = 0.01


class Sgd(Optimizer):
    """SGD with momentum, without dampening or Nesterov's look-ahead: one float32 moment, 4 bytes a parameter."""

    name = "sgd"
    BUFFERS = 2

    def __init__(
        self,
        parameters: Mapping[str, np.ndarray],
        settings: SgdSettings | None = None,
        *,
        no_decay: Collection[str] | None = None,
    ) -> None:
        """Hold on to `parameters` and make their momentum, see Optimizer."""
        self.settings = settings or SgdSettings()
        super().__init__(parameters, self.settings.weight_decay, no_decay)

    @classmethod
    def layout(cls, shape: tuple[int, ...]) -> dict[str, StateArray]:
        """Return the momentum."""
        return {"momentum": StateArray(np.float32)}

    def _updater(self, learning_rate: float, scale: float, weight_decay: float) -> Callable[[Chunk], None]:
        gradient_factor, decay = np.float32(scale), np.float32(weight_decay)
        momentum_factor, rate = np.float32(self.settings.momentum), np.float32(learning_rate)

        def update(chunk: Chunk) -> None:
            parameter, momentum = chunk.parameter, chunk.state["momentum"]
            step, scratch = chunk.scratch
            np.multiply(momentum, momentum_factor, out=momentum)
            np.multiply(chunk.gradient, gradient_factor, out=step)
            np.add(momentum, step, out=momentum)
            if decay != 0:
                np.multiply(parameter, decay, out=scratch)
                np.add(momentum, scratch, out=momentum)
            np.multiply(momentum, rate, out=step)
            np.subtract(parameter, step, out=parameter)

        return update
