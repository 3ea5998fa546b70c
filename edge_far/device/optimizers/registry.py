"""Chooses the optimiser by name, and knows what each costs in memory and how its learning rate compares."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from edge_far.device.optimizers.adamw import AdamW, AdamWSettings
from edge_far.device.optimizers.adamw8bit import AdamW8bit
from edge_far.device.optimizers.base import Optimizer
from edge_far.device.optimizers.lion import Lion, LionSettings
from edge_far.device.optimizers.sgd import Sgd, SgdSettings

__all__ = ["DEFAULT_OPTIMIZER", "OPTIMIZERS", "RATE_ADVICE", "make_optimizer", "state_bytes"]

DEFAULT_OPTIMIZER = "adamw"
# In the order in which the plan proposes them: the nearest to AdamW first.
OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in (AdamW, AdamW8bit, Lion, Sgd)}
# Of those that a rate chosen for AdamW does not suit.
RATE_ADVICE = {
    "lion": "Lion wants a third to a tenth of AdamW's",
    "sgd": "SGD wants many times AdamW's, often a hundred",
}


def make_optimizer(
    name: str, parameters: Mapping[str, np.ndarray], *, weight_decay: float, no_decay: Collection[str]
) -> Optimizer:
    """Return the optimiser of a name in OPTIMIZERS, its other constants being its defaults."""
    if name == "lion":
        return Lion(parameters, LionSettings(weight_decay=weight_decay), no_decay=no_decay)
    if name == "sgd":
        return Sgd(parameters, SgdSettings(weight_decay=weight_decay), no_decay=no_decay)
    kind = {"adamw": AdamW, "adamw8bit": AdamW8bit}[name]
    return kind(parameters, AdamWSettings(weight_decay=weight_decay), no_decay=no_decay)


def state_bytes(name: str, shapes: Iterable[tuple[int, ...]]) -> int:
    """Return the size of an optimiser's state for parameters of these shapes."""
    layout = OPTIMIZERS[name].layout
    return sum(one.bytes(shape) for shape in shapes for one in layout(shape).values())
