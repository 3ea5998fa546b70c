"""What a training engine must offer; the trainer knows nothing else of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_far.bundles.manifest import Portable, Prefix
from edge_far.texts.batches import Batch

__all__ = ["ALONE", "ARENA_ROOM", "Backend", "DropoutKey", "FillWidth", "packs_weights", "texts_of_a_run"]

# A backend's arena, in predicted activations: a region too small takes a second one, which costs more than room.
ARENA_ROOM = 1.25


@dataclass(frozen=True, slots=True)
class DropoutKey:
    """What a dropout mask may depend on, besides its node; the same key gives the same masks on every machine."""

    seed: int
    step: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class FillWidth:
    """How much a prefix computes at once: `threads` runs side by side, and in a run as many texts of one length as have
    `tokens` together, at least one."""

    threads: int = 1
    tokens: int = 0


ALONE = FillWidth()


def texts_of_a_run(prefix: Prefix, length: int, tokens: int) -> int:
    """Return how many texts of one length a run of at most so many tokens takes, at least one."""
    return max(1, tokens // max(1, length)) if prefix.by_rows else 1


def packs_weights(portable: Portable, at_once: int) -> bool:
    """Say whether a prefix that computes so many runs side by side packs its weights: see prefix.py.

    Products of integers give the same numbers then; float32 ones add in another order.
    """
    return at_once > 1 and portable.frozen_precision == "int8"


class Backend(Protocol):
    """Computes losses and gradients of the trained parameters.

    `parameters` and `gradients` map names to float32 arrays that stay the same objects: the trainer updates the
    parameters in place and clears the gradients, the backend reads the former and adds to the latter.
    """

    name: str
    parameters: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]

    def accumulate(self, batch: Batch, loss_scale: float, key: DropoutKey | None, variant: str = "step") -> float:
        """Add the gradients of loss_scale * (sum of the examples' losses); return that loss.

        `key` draws the dropout masks; None trains without dropout. `variant` names one of the bundle's step graphs.
        """

    def logits(self, batch: Batch) -> np.ndarray:
        """Return float32 [B, outputs] without dropout, with the present parameters."""

    def close(self) -> None:
        """Free the engine's memory."""
