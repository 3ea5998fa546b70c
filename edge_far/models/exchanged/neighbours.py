"""Embeddings of a token and its two neighbours that do not depend on what a text is padded with: MobileBERT's.

An embedding is a linear layer on three rows of the table, side by side: that of the token behind, the token's own and
that of the token before. Behind the last token of a batch's longest text transformers reads zeros, but behind the last
token of a shorter one the row of the padding; so an answer depends on the texts beside it. Here it is zeros for all:
the answer is the one that transformers gives for a text alone. Parameters are the original's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from edge_far.far.nodes import architecture_of

__all__ = ["exchange_embeddings"]


class _Mask:
    """Which tokens of the batch are some, float32 [B, S]; no attribute of a module, which a tracer would not allow."""

    there: torch.Tensor | None = None


class NeighbourEmbeddings(nn.Module):
    """The embeddings; the encoder's hook fills `mask`, and they empty it."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.word_embeddings = original.word_embeddings
        self.position_embeddings = original.position_embeddings
        self.token_type_embeddings = original.token_type_embeddings
        self.embedding_transformation = original.embedding_transformation
        self.LayerNorm, self.dropout = original.LayerNorm, original.dropout
        self.register_buffer("position_ids", original.position_ids, persistent=False)
        self.mask = _Mask()

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Return the embeddings [B, S, hidden] of ids [B, S]."""
        there, self.mask.there = self.mask.there, None
        if there is None:
            there = torch.ones_like(input_ids, dtype=torch.float32)
        words = self.word_embeddings(_with_neighbours(input_ids)) * _with_neighbours(there)[..., None]
        if position_ids is None:
            position_ids = self.position_ids[:, : input_ids.shape[1]]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        places = self.position_embeddings(position_ids) + self.token_type_embeddings(token_type_ids)
        hidden = self.embedding_transformation(words.flatten(2)) + places
        embedded: torch.Tensor = self.dropout(self.LayerNorm(hidden))
        return embedded


def _with_neighbours(values: torch.Tensor) -> torch.Tensor:
    """Return [B, S, 3]: of each token the value behind it, its own, the value before it; 0 beyond the ends."""
    # A negative number cuts off.
    behind, before = functional.pad(values, (-1, 1)), functional.pad(values, (1, -1))
    return torch.stack((behind, values, before), dim=-1)


def _hand_over(encoder: Any, _: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Tell the embeddings which tokens are some: by the encoder's mask, or by what stands in its place in a trace.

    That is added to attention's scores, [B, 1, 1, S]: zero, or so far below that its exponential is zero.
    """
    if isinstance(encoder.embeddings, NeighbourEmbeddings):
        mask = named.get("attention_mask")
        if mask is not None:
            mask = torch.exp(mask[:, 0, 0]) if mask.dim() == 4 else mask.to(torch.float32)
        encoder.embeddings.mask.there = mask


def exchange_embeddings(model: nn.Module) -> None:
    """Put these embeddings into a loaded model, in place; other architectures are left as they are."""
    architecture = architecture_of(model)
    if not architecture.neighbours_in_embeddings:
        return
    encoder: Any = model.get_submodule(architecture.encoder) if hasattr(model, architecture.encoder) else model
    encoder.embeddings = NeighbourEmbeddings(encoder.embeddings).train(encoder.embeddings.training)
    encoder.register_forward_pre_hook(_hand_over, with_kwargs=True)
