"""Puts this wing's modules into a loaded model, and transformers' own back; most architectures need none."""

from __future__ import annotations

from torch import nn

from edge_far.models.exchanged.disentangled import exchange_attention
from edge_far.models.exchanged.joined import join_linears, part_linears
from edge_far.models.exchanged.neighbours import exchange_embeddings

__all__ = ["exchange_modules", "restore_modules"]


def exchange_modules(model: nn.Module) -> None:
    """Put our modules into a model as transformers loads it, in place."""
    part_linears(model)
    exchange_attention(model)
    exchange_embeddings(model)


def restore_modules(model: nn.Module) -> None:
    """Give a model the original's parameters again, in place and bit for bit; what is reconfigured must be merged.

    Modules whose parameters are the original's stay.
    """
    join_linears(model)
