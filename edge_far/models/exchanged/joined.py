"""Gives query, key, value and the inner linears of a gated FFN matrices of their own, and joins them again: ModernBERT.

The original has them as one matrix each, rows one below the other (`joined` of its adapter). Heads and nodes are split,
frozen and compiled by linear: so a model is loaded with them apart, and a release has the original's matrices again.
The modules here compute what transformers' do; how each position turns is a table, made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from edge_far.far.nodes import architecture_of, block_paths, empty_linear

__all__ = ["join_linears", "part_linears"]


class RotaryHeads(nn.Module):
    """All heads of an attention, or some: queries and keys turned by their positions, weights, and weighted values.

    `cosines` and `sines` [longest, width / 2] are by how much. The number of heads is that of the linears' outputs.
    """

    def __init__(self, parts: Sequence[nn.Linear], cosines: torch.Tensor, sines: torch.Tensor, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = parts
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("cosines", cosines, persistent=False)
        self.register_buffer("sines", sines, persistent=False)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> tuple[torch.Tensor, None]:
        """Return the heads' outputs [B, S, heads * width]; the mask is added to the scores [B, heads, S, S]."""
        batch, length, _width = hidden_states.shape
        shape = (batch, length, -1, 2 * self.cosines.shape[1])
        query, key = (self._turned(linear(hidden_states).view(shape)) for linear in (self.query, self.key))
        value = self.value(hidden_states).view(shape).transpose(1, 2)
        scores = torch.matmul(query.transpose(1, 2), key.transpose(1, 2).transpose(2, 3)) * shape[-1] ** -0.5
        if attention_mask is not None:
            scores = scores + attention_mask
        weights = self.dropout(torch.softmax(scores, dim=-1))
        return torch.matmul(weights, value).transpose(1, 2).flatten(2), None

    def _turned(self, vectors: torch.Tensor) -> torch.Tensor:
        """Turn each pair of numbers, of which one is in the first half of a head's width, by its position."""
        places = torch.arange(vectors.shape[1], device=vectors.device)
        cosines, sines = (table.index_select(0, places)[:, None, :] for table in (self.cosines, self.sines))
        low, high = vectors.chunk(2, dim=-1)
        return torch.cat((low * cosines - high * sines, high * cosines + low * sines), dim=-1)


class PartedAttention(nn.Module):
    """Heads, their output projection and its dropout."""

    def __init__(self, original: nn.Module, inner: RotaryHeads) -> None:
        super().__init__()
        self.original = (original,)  # a tuple: no module of this one
        self.inner, self.Wo, self.out_drop = inner, original.Wo, original.out_drop

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any
    ) -> tuple[torch.Tensor, None]:
        """Return the attention's output [B, S, hidden], and no weights."""
        heads = self.inner(hidden_states, attention_mask=attention_mask)[0]
        return self.out_drop(self.Wo(heads)), None


class PartedFfn(nn.Module):
    """A gated FFN."""

    def __init__(self, original: nn.Module, parts: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.original = (original,)
        self.inner, self.gate = parts
        self.act, self.drop, self.Wo = original.act, original.drop, original.Wo

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the FFN's output [..., hidden]."""
        return self.Wo(self.drop(self.act(self.inner(hidden_states)) * self.gate(hidden_states)))


def part_linears(model: nn.Module) -> None:
    """Put the modules of this file into a loaded model, in place; other architectures are left as they are."""
    architecture = architecture_of(model)
    if not architecture.joined:
        return
    encoder = model.get_submodule(architecture.encoder) if hasattr(model, architecture.encoder) else model
    tables = {kind: _tables(encoder, kind) for kind in sorted(set(model.config.layer_types))}
    for path, kind in zip(block_paths(model), model.config.layer_types, strict=True):
        block = model.get_submodule(path)
        attention, ffn = block.attn, block.mlp
        parts = _rows(attention.Wqkv, 3)
        inner = RotaryHeads(parts, *tables[kind], float(attention.attention_dropout))
        block.attn = PartedAttention(attention, inner).train(attention.training)
        block.mlp = PartedFfn(ffn, _rows(ffn.Wi, 2)).train(ffn.training)
        attention.Wqkv = ffn.Wi = None


def join_linears(model: nn.Module) -> None:
    """Put transformers' modules back, bit for bit, with the present values; what is reconfigured must be merged."""
    if not architecture_of(model).joined:
        return
    for path in block_paths(model):
        block = model.get_submodule(path)
        (attention,), (ffn,) = block.attn.original, block.mlp.original
        inner = block.attn.inner
        attention.Wqkv, attention.Wo = _joined((inner.query, inner.key, inner.value)), block.attn.Wo
        ffn.Wi, ffn.Wo = _joined((block.mlp.inner, block.mlp.gate)), block.mlp.Wo
        block.attn, block.mlp = attention.train(block.training), ffn.train(block.training)


def _tables(encoder: Any, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cosines and sines [longest, width / 2] of a kind of block, as transformers computes them."""
    places = torch.arange(int(encoder.config.max_position_embeddings))[None]
    cosines, sines = encoder.rotary_emb(torch.zeros(1), places, kind)
    half = cosines.shape[-1] // 2
    return cosines[0, :, :half].contiguous(), sines[0, :, :half].contiguous()


def _rows(linear: nn.Linear, count: int) -> list[nn.Linear]:
    size = linear.out_features // count
    parts = [empty_linear(linear.in_features, size, linear.weight, bias=linear.bias is not None) for _ in range(count)]
    with torch.no_grad():
        for number, part in enumerate(parts):
            rows = slice(number * size, (number + 1) * size)
            part.weight.copy_(linear.weight[rows])
            if part.bias is not None:
                part.bias.copy_(linear.bias[rows])
    return parts


def _joined(parts: Sequence[nn.Linear]) -> nn.Linear:
    first, rows = parts[0], sum(part.out_features for part in parts)
    whole = empty_linear(first.in_features, rows, first.weight, bias=first.bias is not None)
    with torch.no_grad():
        whole.weight.copy_(torch.cat([part.weight for part in parts]))
        if whole.bias is not None:
            whole.bias.copy_(torch.cat([part.bias for part in parts]))
    return whole
