"""How many tokens of a text a model reads: what was asked for, what it says of itself, or what is found by trying."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_far.errors import ConfigError, EdgeFarError
from edge_far.texts.batches import Batch

__all__ = ["reading_length"]

# For a release that does not say how long its texts were: the longest of these that it reads.
TRIED = (128, 64, 32, 16, 8)


def reading_length(logits: Callable[[Batch], np.ndarray], asked: int | None, known: int | None) -> int:
    """Return the number of tokens to which texts are cut: `asked`, else `known`, else what the model is found to read.

    `known` is what the model was trained with, which it reads. Raises ConfigError (78) for more than it reads.
    """
    if asked is not None:
        if asked > (known or 0) and not _reads(logits, asked):
            hint = f"its texts had at most {known}" if known else f"try {TRIED[0]} or less"
            raise ConfigError(f"the model does not read {asked} tokens", where="--max-seq-len", hint=hint)
        return asked
    if known is not None:
        return known
    for length in TRIED:
        if _reads(logits, length):
            return length
    raise ConfigError("the model does not say how many tokens it reads", hint="name it with --max-seq-len")


def _reads(logits: Callable[[Batch], np.ndarray], length: int) -> bool:
    """Try a text of two tokens: RoBERTa counts no positions where a token is the one it pads with."""
    for token in (0, 1):
        ids = np.full((1, length), token, np.int64)
        try:
            logits(Batch(ids, np.ones_like(ids), None, np.full(1, -1)))
        except EdgeFarError:
            return False
    return True
