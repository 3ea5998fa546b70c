"""The part of a model above a cut, in torch: it reads hidden states that were computed once, as a device does.

A copy of the last blocks and the head, in which the embeddings are replaced by the states of the batch. Here too is
what any such model, or a whole one, makes of a batch: its logits, and their loss by the name that a task gives it
(compile/gradient/losses.py has the same ones).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edge_far.errors import DataError, UsageError
from edge_far.far.nodes import after_blocks_of, architecture_of, block_paths, embeddings_of
from edge_far.texts.batches import Batch

__all__ = ["LOSSES", "above_cut", "as_mapping", "last_linear", "logits_of", "mean_loss"]

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class StoredStates(nn.Module):
    """Stands where the embeddings stood and hands out what logits_of laid down, float32 [B, S, width]."""

    states: torch.Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        """Return the states of the batch, whatever the ids are."""
        if self.states is None:
            raise UsageError("a batch for blocks above a cut has no hidden states")
        return self.states


class _PassOn(nn.Module):
    """Stands where a block must stand when none is left."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None]:
        """Return the states as they came."""
        return hidden_states, None


class _NoBlocks(nn.ModuleList):
    """No block, for an encoder that must find one."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter((_PassOn(),))


def above_cut(model: nn.Module, cut: int) -> nn.Module:
    """Return a copy of the blocks from `cut` on and the head; batches then need `hidden` (logits_of).

    With cut 0 nothing is below, and the copy is whole. With as many as there are blocks the head alone is left, and
    `hidden` holds one row a text: [B, 1, width]. What is below is not copied.
    """
    if cut == 0:
        return copy.deepcopy(model)
    paths = block_paths(model)
    embeddings, *projections = embeddings_of(model)
    left_out = [*embeddings_of(model).values(), *(model.get_submodule(path) for path in paths[:cut])]
    upper: nn.Module = copy.deepcopy(model, {id(one): StoredStates() for one in left_out})
    layers = paths[0].rpartition(".")[0]
    left = nn.ModuleList([upper.get_submodule(path) for path in paths[cut:]])
    stands_in = not len(left) and architecture_of(model).needs_a_block
    upper.set_submodule(layers, _NoBlocks() if stands_in else left)
    upper.set_submodule(embeddings, StoredStates())
    for path in (*projections, *(after_blocks_of(model) if cut == len(paths) else ())):
        upper.set_submodule(path, nn.Identity())
    return upper


def as_mapping(batch: Batch) -> dict[str, Any]:
    """Return a batch as logits_of and priming read it."""
    return {**batch.model_inputs(token_types=batch.token_type_ids is not None), "labels": batch.labels}


def logits_of(model: nn.Module, batch: Mapping[str, Any]) -> torch.Tensor:
    """Return a classifier's logits, [B, labels] or [B, S, labels], for a batch of arrays or tensors.

    A batch holds `input_ids` and `attention_mask` [B, S], `token_type_ids` where the model reads them, and `hidden`
    [B, S, width] where it begins above a cut. Raises UsageError for a model without a classification head.
    """
    device = next(model.parameters()).device
    inputs = {n: torch.as_tensor(batch[n]).long().to(device) for n in _INPUTS if batch.get(n) is not None}
    if batch.get("hidden") is not None:
        module = next(iter(embeddings_of(model).values()))
        if not isinstance(module, StoredStates):
            raise UsageError("hidden states are for the blocks above a cut alone")
        module.states = torch.as_tensor(batch["hidden"]).to(device).float()
    logits: torch.Tensor | None = getattr(model(**inputs), "logits", None)
    if logits is None:
        raise UsageError(f"{type(model).__name__} has no classification head")
    return logits


def last_linear(model: nn.Module) -> nn.Linear:
    """Return the linear layer that makes the logits: the last one of the head."""
    heads = ("classif", "qa_outputs")
    linears = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and any(head in name for head in heads)
    ]
    if not linears or linears[-1].out_features != int(model.config.num_labels):
        raise UsageError(f"{type(model).__name__} has no classification head")
    return linears[-1]


# --- losses ----------------------------------------------------------------------------------------------------------


def _softmax(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of class numbers int64 [B]."""
    targets = targets.long()
    if targets.min() < 0 or targets.max() >= logits.shape[-1]:
        raise DataError(f"a label is not within 0 to {logits.shape[-1] - 1}, the model's outputs")
    return functional.cross_entropy(logits, targets)


def _square(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the squared error, mean over the outputs; targets float32 [B, outputs]."""
    return functional.mse_loss(logits, targets)


def _sigmoid(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the binary cross-entropy, mean over the outputs; targets float32 [B, outputs], 0 or 1."""
    return functional.binary_cross_entropy_with_logits(logits, targets)


def _token_softmax(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean over the examples of the mean cross-entropy of their tokens.

    Logits are [B, S, outputs]; targets int64 [B, S] are class numbers, negative where a token has none.
    """
    known = targets >= 0
    if int(targets.max()) >= logits.shape[-1]:
        raise DataError(f"a label is not within 0 to {logits.shape[-1] - 1}, the model's outputs")
    chosen = functional.log_softmax(logits, dim=-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return -((chosen * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)).mean()


def _span(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of first and last token, mean of the two; targets float32 [B, S, 2].

    They are 1 at the token, 0 where it might have been, negative where not.
    """
    log_probabilities = functional.log_softmax(logits.masked_fill(targets < 0, -1e9), dim=1)
    return -(log_probabilities * targets.clamp(min=0)).sum(dim=(1, 2)).mean() / 2


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "square": _square,
    "token_softmax": _token_softmax,
    "span": _span,
}


def mean_loss(name: str, logits: torch.Tensor, targets: Any) -> torch.Tensor:
    """Return the mean loss of a batch: logits [B, outputs], targets as the task has them, an array or a tensor.

    Raises DataError for a class that the model has no output for.
    """
    return LOSSES[name](logits, torch.as_tensor(targets).to(logits.device))
