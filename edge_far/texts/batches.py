"""Which examples form a batch, in which order, and how a batch is padded; numpy only.

Sentences are short, and padding all to the maximum would cost several times the work: batches hold examples
of similar length and are padded to their own longest. The order depends on (seed, epoch) alone, so that a
resumed run sees the examples of the run it continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from edge_far.texts.encode import ROUNDED, Encoded

__all__ = ["Batch", "collate", "first_batches", "padded_length", "plan_epoch", "split_batch"]

BATCHES_PER_WINDOW = 32


@dataclass(frozen=True, slots=True)
class Batch:
    """B padded examples of S tokens, all int64 [B, S]; labels as in Encoded, int64 [B] or float32 [B, outputs].

    Where every token has a target, labels are padded like the tokens, [B, S, ...].

    `hidden` holds what a bundle's prefix makes of them, float32 [B, S, width] or pooled [B, width], where it is known.
    """

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray | None
    labels: np.ndarray
    hidden: np.ndarray | None = None

    def model_inputs(self, *, token_types: bool) -> dict[str, np.ndarray]:
        """Return what a graph reads of the texts, by its inputs' names; token types are zeros where there are none."""
        feeds = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if token_types:
            types = self.token_type_ids
            feeds["token_type_ids"] = np.zeros_like(self.input_ids) if types is None else types
        return feeds


def padded_length(longest: int, multiple: int = ROUNDED) -> int:
    """Return `longest` rounded up to a multiple, at least one multiple: few shapes, and aligned rows."""
    return max(1, -(-longest // multiple)) * multiple


def plan_epoch(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the batches of one epoch as arrays of example indices; every example appears exactly once.

    The examples are shuffled, cut into windows of BATCHES_PER_WINDOW batches, sorted by length inside each
    window and cut into batches, whose order is shuffled. One batch is short when the batch size does not
    divide the count.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, not at least 1")
    lengths = np.asarray(lengths)
    random = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    order = _permutation(random, len(lengths))
    batches = []
    window_size = batch_size * BATCHES_PER_WINDOW
    for start in range(0, len(order), window_size):
        window = order[start : start + window_size]
        window = window[np.argsort(lengths[window], kind="stable")]
        batches += [window[cut : cut + batch_size] for cut in range(0, len(window), batch_size)]
    return [batches[index] for index in _permutation(random, len(batches))]


def first_batches(lengths: np.ndarray, batch_size: int, seed: int, count: int) -> Iterator[np.ndarray]:
    """Yield the first `count` batches of a run, epoch after epoch, as plan_epoch's arrays of example indices."""
    epoch = 0
    while count > 0:
        for indices in plan_epoch(lengths, batch_size, seed, epoch)[:count]:
            yield indices
            count -= 1
        epoch += 1


def split_batch(lengths: np.ndarray, indices: np.ndarray, rows_for_length: Callable[[int], int]) -> list[np.ndarray]:
    """Cut one batch into micro-batches, longest examples first, each padded only to its own longest.

    `rows_for_length` says how many rows of a padded length fit the memory plan. The longest rows come first,
    so that the largest shape is allocated first.
    """
    indices = np.asarray(indices)
    ordered = indices[np.argsort(-np.asarray(lengths)[indices], kind="stable")]
    parts = []
    start = 0
    while start < len(ordered):
        length = padded_length(int(lengths[ordered[start]]))
        rows = rows_for_length(length)
        if rows < 1:
            raise ValueError(f"no row of {length} tokens fits the memory plan")
        parts.append(ordered[start : start + rows])
        start += rows
    return parts


def collate(encoded: Encoded, indices: np.ndarray, length: int | None = None) -> Batch:
    """Pad the examples `indices` to `length` tokens, by default their longest rounded up to a multiple of 8.

    The default never exceeds the encoder's max_seq_len. Raises ValueError when an example is longer than
    `length`.
    """
    indices = np.asarray(indices, np.int64)
    starts = encoded.starts[indices]
    lengths = encoded.starts[indices + 1] - starts
    longest = int(lengths.max(initial=1))
    if length is None:
        length = max(longest, min(padded_length(longest), encoded.max_seq_len))
    if longest > length:
        raise ValueError(f"an example of {longest} tokens does not fit {length}")
    mask = np.arange(length) < lengths[:, None]
    source = (starts[:, None] + np.arange(length))[mask]
    input_ids = np.full(mask.shape, encoded.pad_id, np.int64)
    input_ids[mask] = encoded.tokens[source]
    types = None
    if encoded.type_ids is not None:
        types = np.zeros(mask.shape, np.int64)
        types[mask] = encoded.type_ids[source]
    return Batch(input_ids, mask.astype(np.int64), types, encoded.targets_of(indices, length))


def _permutation(random: np.random.PCG64, count: int) -> np.ndarray:
    """Return a random order, the same in every NumPy release: raw 64-bit output is promised to be."""
    return np.argsort(random.random_raw(count), kind="stable")
