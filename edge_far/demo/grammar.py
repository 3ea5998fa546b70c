"""The notation of the demo's phrasings, and how one sentence is drawn from a phrasing.

A *family* is one phrasing, written as a string: `[a|b|]` is a choice (here the last one is empty) and
`{room}` a slot that `edge_far.demo.slots` fills. A family belongs to one intent and to one split, so that a
sentence of the test split is never a refilled sentence of the training split.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from edge_far.demo.slots import fillers

__all__ = ["SPLITS", "Intent", "draw"]

SPLITS = ("train", "eval", "test")

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Intent:
    """One label and its phrasings in each split; a phrasing stands in one split only."""

    label: str
    train: tuple[str, ...]
    eval: tuple[str, ...]
    test: tuple[str, ...]

    def families(self, split: str) -> tuple[str, ...]:
        """Return the phrasings of a split: "train", "eval" or "test"."""
        return {"train": self.train, "eval": self.eval, "test": self.test}[split]


def draw(family: str, split: str, rng: random.Random) -> str:
    """Draw one sentence from a family: every choice decided, every slot filled with a word of the split."""
    decided = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), family)
    filled = _SLOT.sub(lambda match: rng.choice(fillers(match[1], split)), decided)
    return _SPACES.sub(" ", filled).strip()
