"""Scores attention by content and by distance, apart, with nothing looked up: DeBERTa-v2's, in another form.

Scores are the sum of three products: content with content, a query with the distance's key, and a key with the
distance's query. transformers multiplies with all distances and then looks each pair's up, slow both ways. Here the
rows of the distances of this length are laid out in their order: the pair of query i and key j finds its own at
place j - i + length of row i, which the compiler makes a shift of rows (edge_far.Shifted). Parameters and results are
the original's, but for training: the table of distances has no dropout here, for where it is frozen, what is made of it
is made once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edge_far.far.nodes import architecture_of, block_paths
from edge_far.models.guard import transformers_package

__all__ = ["exchange_attention"]

MASKED_SCORE = -1e9


class DisentangledHeads(nn.Module):
    """All heads of an attention, or some. The number of heads is that of the linears' outputs.

    `falling` and `rising` [2 * longest] are places in the table of distances: of longest, longest - 1, ..., and of
    -longest, 1 - longest, ...
    """

    def __init__(self, original: Any, falling: torch.Tensor, rising: torch.Tensor) -> None:
        super().__init__()
        self.query_proj, self.key_proj, self.value_proj = original.query_proj, original.key_proj, original.value_proj
        self.dropout = original.dropout
        self.width = int(original.attention_head_size)
        self.register_buffer("falling", falling, persistent=False)
        self.register_buffer("rising", rising, persistent=False)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        *_: Any,
        rel_embeddings: torch.Tensor,
        **__: Any,
    ) -> tuple[torch.Tensor, None]:
        """Return the heads' outputs [B, S, heads * width].

        The mask is added to the scores, or, of whole numbers, 1 where a score counts. `rel_embeddings` is the table.
        """
        batch, length, _hidden = hidden_states.shape
        query, key, value = (
            linear(hidden_states).view(batch, length, -1, self.width).transpose(1, 2)
            for linear in (self.query_proj, self.key_proj, self.value_proj)
        )
        scale = (3 * self.width) ** -0.5
        scores = torch.matmul(query, key.transpose(2, 3)) * scale
        keys = self._rows(self.key_proj, rel_embeddings, self.falling, length)
        queries = self._rows(self.query_proj, rel_embeddings, self.rising, length)
        scores = scores + _shifted(torch.matmul(query, keys) * scale)
        scores = scores + _shifted(torch.matmul(key, queries) * scale).transpose(2, 3)
        if not attention_mask.is_floating_point():
            attention_mask = (1.0 - attention_mask) * MASKED_SCORE
        weights = self.dropout(torch.softmax(scores + attention_mask, dim=-1))
        return torch.matmul(weights, value).transpose(1, 2).flatten(2), None

    def _rows(self, linear: nn.Linear, table: torch.Tensor, order: torch.Tensor, length: int) -> torch.Tensor:
        """Return what a linear makes of 2 * length rows of the table, [1, heads, width, 2 * length]."""
        places = torch.arange(2 * length, device=order.device) + (len(order) // 2 - length)
        rows = linear(table.index_select(0, order.index_select(0, places)))
        return rows.view(1, 2 * length, -1, self.width).permute(0, 2, 3, 1)


def _shifted(scores: torch.Tensor) -> torch.Tensor:
    """Return [B, A, S, S] of [B, A, S, 2 S]: of row i the S numbers from place S - i on."""
    batch, heads, length, _ = scores.shape
    places = torch.arange(length, device=scores.device)
    order = places[None, :] - places[:, None] + length
    return torch.gather(scores, 3, order.expand(batch, heads, length, length))


def exchange_attention(model: nn.Module) -> None:
    """Put this attention into a loaded model, in place; other architectures are left as they are."""
    if not architecture_of(model).distances_in_attention:
        return
    for path in block_paths(model):
        attention = model.get_submodule(f"{path}.attention")
        original = attention.self
        attention.self = DisentangledHeads(original, *_orders(original, model.config)).train(original.training)


def _orders(original: Any, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of the table for falling and for rising distances of a query from a key, as transformers has."""
    longest, span = int(config.max_position_embeddings), int(original.pos_ebd_size)
    rising = torch.arange(-longest, longest)
    orders = []
    bucket = transformers_package().models.deberta_v2.modeling_deberta_v2.make_log_bucket_position
    for distances in (-rising, rising):
        if original.position_buckets > 0:
            distances = bucket(distances, original.position_buckets, original.max_relative_positions)
        orders.append(torch.clamp(distances.long() + span, 0, 2 * span - 1))
    return orders[0], orders[1]
