"""What the frozen model makes of every text, computed once: hidden states at each cut, and one vector a text.

All rungs that begin above a cut train on these, so a trial costs what lies above. Numbers are those of the model in
evaluation mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_far.console import Console
from edge_far.far.above_cut import as_mapping, last_linear, logits_of
from edge_far.far.nodes import after_blocks_of, block_paths
from edge_far.far.pooling import reads_mean
from edge_far.texts.batches import collate
from edge_far.texts.encode import Encoded

__all__ = ["STATE_BYTES", "FrozenOutputs", "frozen_outputs"]

TOKENS_AT_ONCE = 4096
MOST_TOKENS = 1 << 15  # that a head is fitted on
STATE_TYPE = np.float16
STATE_BYTES = np.dtype(STATE_TYPE).itemsize


@dataclass(frozen=True, eq=False)
class FrozenOutputs:
    """Of N texts of T tokens together: `states` by cut, float16 [T, width]; `mean`, the mean of the encoder's
    tokens, and `first`, their first, float32 [N, width]; `head_input`, what the model's own last linear layer reads,
    float32 [N, width]. `own_mean` says that the model's own head reads the mean, too. Where every token is read, states
    have the encoder's output too, and `head_input` is empty."""

    states: Mapping[int, np.ndarray]
    mean: np.ndarray
    first: np.ndarray
    head_input: np.ndarray
    starts: np.ndarray
    own_mean: bool = False

    def batch(self, encoded: Encoded, indices: np.ndarray, cut: int, blocks: int, pooling: str) -> dict[str, Any]:
        """Return a batch for above_cut(model, cut) of a model of that many blocks."""
        if cut == 0:
            return as_mapping(collate(encoded, indices))
        if cut == blocks and cut not in self.states:
            vectors = (self.mean if pooling == "mean" or self.own_mean else self.first)[indices]
            ones = np.ones((len(indices), 1), np.int64)
            return {
                "input_ids": ones,
                "attention_mask": ones,
                "hidden": vectors[:, None, :],
                "labels": encoded.labels[indices],
            }
        batch = as_mapping(collate(encoded, indices))
        mask = batch["attention_mask"].astype(bool)
        hidden = np.zeros((*mask.shape, self.mean.shape[1]), np.float32)
        rows = (self.starts[indices][:, None] + np.arange(mask.shape[1]))[mask]
        hidden[mask] = self.states[cut][rows]
        return {**batch, "hidden": hidden}

    def head_reads(self, encoded: Encoded, rows: np.ndarray, pooling: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what a head with this pooling reads of some texts, float32 [n, width], and their targets.

        Where it reads every token, these are [n, S, width], zero behind a text's end, of texts of MOST_TOKENS at most.
        """
        if pooling != "none":
            return (self.mean if pooling == "mean" else self.head_input)[rows], encoded.labels[rows]
        rows = rows[: max(1, MOST_TOKENS // int(encoded.lengths[rows].max()))]
        batch = self.batch(encoded, rows, max(self.states), 0, pooling)
        return batch["hidden"], batch["labels"]


def frozen_outputs(
    model: nn.Module, encoded: Encoded, cuts: Sequence[int], console: Console, rows: np.ndarray | None = None
) -> FrozenOutputs:
    """Run texts through a classifier once, without dropout; `cuts` are those whose states are kept.

    `rows` are the examples that will be asked for, by default all; the others' places stay zero.
    """
    wanted = np.arange(len(encoded)) if rows is None else rows
    blocks, count = block_paths(model), len(encoded)
    width: int = model.config.hidden_size
    of_texts = encoded.nothing is None
    last_kept = len(blocks) - 1 if of_texts else len(blocks)
    states = {cut: np.zeros((len(encoded.tokens), width), STATE_TYPE) for cut in cuts if 0 < cut <= last_kept}
    mean, first = np.zeros((count, width), np.float32), np.zeros((count, width), np.float32)
    head_input = np.zeros((count if of_texts else 0, last_linear(model).in_features), np.float32)
    training = model.training
    model.eval()
    done = 0
    with torch.no_grad(), _watched(model, blocks) as seen, console.progress(len(wanted), "frozen model") as progress:
        for indices in _batches(encoded.lengths, wanted):
            batch = as_mapping(collate(encoded, indices))
            logits_of(model, batch)
            mask = batch["attention_mask"].astype(bool)
            places = (encoded.starts[indices][:, None] + np.arange(mask.shape[1]))[mask]
            for cut, kept in states.items():
                kept[places] = seen[cut].cpu().numpy()[mask]
            last = seen[len(blocks)].float().cpu().numpy()
            weights = mask / mask.sum(axis=1, keepdims=True)
            mean[indices] = np.einsum("bs,bsw->bw", weights, last)
            first[indices] = last[:, 0]
            if of_texts:
                head_input[indices] = seen[-1].float().cpu().numpy().reshape(len(indices), -1)
            done += len(indices)
            progress.update(done)
    model.train(training)
    return FrozenOutputs(states, mean, first, head_input, encoded.starts, reads_mean(model))


def _batches(lengths: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield examples in batches of like length, each of at most TOKENS_AT_ONCE tokens or one example."""
    order = rows[np.argsort(lengths[rows], kind="stable")]
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= TOKENS_AT_ONCE:
            stop += 1
        yield order[start:stop]
        start = stop


@contextmanager
def _watched(model: nn.Module, blocks: Sequence[str]) -> Iterator[dict[int, torch.Tensor]]:
    """Yield what entered each block, by its number, what left the encoder (the number of blocks), and, at -1, what the
    last linear layer read."""
    seen: dict[int, torch.Tensor] = {}

    def enters(number: int) -> Any:
        def keep(_: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            seen[number] = (arguments[0] if arguments else named["hidden_states"]).detach()

        return keep

    def leaves(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        seen[len(blocks)] = (output[0] if isinstance(output, tuple) else output).detach()

    handles = [
        model.get_submodule(path).register_forward_pre_hook(enters(number), with_kwargs=True)
        for number, path in enumerate(blocks)
    ]
    last = [*blocks, *after_blocks_of(model)][-1]
    handles.append(model.get_submodule(last).register_forward_hook(leaves))
    handles.append(
        last_linear(model).register_forward_pre_hook(lambda _, arguments: seen.__setitem__(-1, arguments[0].detach()))
    )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
