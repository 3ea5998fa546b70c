"""The attention heads of a BERT-like encoder: where they are, how they are measured, and an attention split by them.

Head h of a block is rows h*width to (h+1)*width of the query's, key's and value's weights and biases, and the same
columns of the output projection's weight. Heads meet in the sum of their outputs alone, so

    Attention(x)      = O concat(head_0(x), head_1(x), ...) + b
    SplitAttention(x) = O[:, L] concat(heads L of x) + b + O[:, N] concat(heads N of x)

with L the heads that learn and N the others: two attentions with nothing to put together or take apart between them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_far.architectures.adapter import AttentionSlots
from edge_far.errors import Unavailable, UsageError
from edge_far.far.nodes import architecture_of, block_paths, empty_linear

__all__ = [
    "AttentionBlock",
    "SplitAttention",
    "attention_share",
    "attention_slots",
    "find_attention_blocks",
    "head_l1",
]


@dataclass(frozen=True, eq=False)
class AttentionBlock:
    """The attention of one encoder block: `heads` heads of `width` numbers.

    `inputs` are query, key and value, Linear(hidden, heads * width); `output` is Linear(heads * width, hidden).
    """

    index: int
    path: str
    heads: int
    width: int
    inputs: tuple[nn.Linear, nn.Linear, nn.Linear]
    output: nn.Linear

    @property
    def units(self) -> int:
        """Return the number of heads."""
        return self.heads

    def values(self) -> list[torch.Tensor]:
        """Return what head_l1 measures: each input's weight and bias, if any, and the output projection's weight."""
        parts = [part for linear in self.inputs for part in (linear.weight, linear.bias) if part is not None]
        return [*parts, self.output.weight]

    def l1(self, values: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the L1 norm of each head's part of such values, or of differences of them."""
        return head_l1(values[:-1], values[-1], self.width)


def attention_slots(model: nn.Module) -> AttentionSlots:
    """Return where the attention of each block and its four linears hang."""
    return architecture_of(model).attention


def find_attention_blocks(model: nn.Module) -> tuple[AttentionBlock, ...]:
    """Return the attention of every encoder block, in the order they run.

    Raises Unavailable for an unsupported model and UsageError for one that is reconfigured already.
    """
    architecture, slots = architecture_of(model), attention_slots(model)
    if not architecture.heads_part:
        raise Unavailable(f"the heads of {architecture.title} cannot be parted", hint="use --attention full")
    heads = int(model.config.num_attention_heads)
    blocks = []
    for index, path in enumerate(block_paths(model)):
        attention = model.get_submodule(f"{path}.{slots.attention}")
        if isinstance(attention, SplitAttention):
            raise UsageError(
                "the attention is split already", where=path, hint="a model that was reconfigured must be merged first"
            )
        query, key, value = (attention.get_submodule(name) for name in slots.inputs)
        output = model.get_submodule(f"{path}.{slots.output}")
        if not all(type(linear) is nn.Linear for linear in (query, key, value, output)):
            raise UsageError("query, key, value and output are not four plain linear layers", where=path)
        width = query.out_features // heads
        blocks.append(AttentionBlock(index, path, heads, width, (query, key, value), output))
    return tuple(blocks)


def head_l1(inputs: Sequence[torch.Tensor], output: torch.Tensor, width: int) -> np.ndarray:
    """Return the L1 norm of each head's values, float64 [heads].

    `inputs` are arrays whose rows belong to heads (weights [heads * width, hidden] and biases [heads * width]),
    `output` is [hidden, heads * width]; given differences, the result is the norm of each head's change.
    """
    rows = sum(array.detach().double().abs().reshape(len(array), -1).sum(dim=1) for array in inputs)
    columns = output.detach().double().abs().sum(dim=0)
    total: np.ndarray = (rows + columns).reshape(-1, width).sum(dim=1).cpu().numpy()
    return total


class SplitAttention(nn.Module):
    """An attention as two of the same class with a part of the heads each, of which only the learners' is trained.

    `learner` and `frozen` are the original attention with fewer rows in query, key and value, and no output projection;
    `learner_out` is Linear(r * width, hidden) with the original, trainable bias, `frozen_out` the rest without bias. An
    empty side is absent (None); without learners `frozen_out` carries the bias, still trainable.
    """

    def __init__(
        self, attention: nn.Module, block: AttentionBlock, slots: AttentionSlots, learners: np.ndarray
    ) -> None:
        super().__init__()
        chosen = np.zeros(block.heads, dtype=bool)
        chosen[learners] = True
        self.width = block.width
        self.slots = slots
        self.learners = np.flatnonzero(chosen)
        self.non_learners = np.flatnonzero(~chosen)
        self.learner, self.learner_out = _take(attention, block, slots, self.learners, bias=True)
        bias = not len(self.learners)
        self.frozen, self.frozen_out = _take(attention, block, slots, self.non_learners, bias=bias)
        if self.frozen is not None:
            self.frozen.requires_grad_(False)
            self.frozen_out.weight.requires_grad_(False)

    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **named: Any) -> tuple[torch.Tensor, None]:
        """Return the projected sum of all heads; the attention's weights are not returned."""
        sides = (
            (self.learners, self.learner, self.learner_out),
            (self.non_learners, self.frozen, self.frozen_out),
        )
        parts = []
        for heads, side, out in sides:
            if side is not None:
                positional = [self._of_heads(argument, heads) for argument in arguments]
                by_name = {name: self._of_heads(argument, heads) for name, argument in named.items()}
                parts.append(out(side(hidden_states, *positional, **by_name)[0]))
        return sum(parts[1:], start=parts[0]), None

    def _of_heads(self, argument: Any, heads: np.ndarray) -> Any:
        """Return these heads' part of a mask or bias [batch, heads, queries, keys], and any other argument as it is."""
        total = len(self.learners) + len(self.non_learners)
        if not isinstance(argument, torch.Tensor) or argument.dim() != 4 or argument.shape[1] != total or total == 1:
            return argument
        return argument.index_select(1, torch.from_numpy(heads).to(argument.device))

    def merged(self) -> tuple[nn.Module, nn.Linear]:
        """Return the original attention and its output projection, holding this module's present values.

        Where the projection hangs inside the attention, it still has to be put there.
        """
        sides = [
            (elements_of(indices, self.width), side, outer)
            for indices, side, outer in (
                (self.learners, self.learner, self.learner_out),
                (self.non_learners, self.frozen, self.frozen_out),
            )
            if side is not None
        ]
        elements, _, outer = sides[0]
        total = sum(len(elements) for elements, _, _ in sides)
        output = empty_linear(total, outer.out_features, outer.weight, bias=outer.bias is not None)
        parts = [sides[0][1].get_submodule(name) for name in self.slots.inputs]
        inputs = [empty_linear(part.in_features, total, outer.weight, bias=part.bias is not None) for part in parts]
        with torch.no_grad():
            for elements, side, outer in sides:
                index = torch.from_numpy(elements).to(outer.weight.device)
                for linear, name in zip(inputs, self.slots.inputs, strict=True):
                    linear.weight[index] = side.get_submodule(name).weight
                    if linear.bias is not None:
                        linear.bias[index] = side.get_submodule(name).bias
                output.weight[:, index] = outer.weight
                if outer.bias is not None:
                    output.bias.copy_(outer.bias)
        return _with_linears(sides[0][1], self.slots, inputs), output


def attention_share(asked: float | None, retention: float, heads: int) -> float:
    """Return the share of heads that learn: what was asked, or the FFN nodes' share, but then at least one head."""
    return asked if asked is not None else max(retention, 1 / heads)


def elements_of(heads: np.ndarray, width: int) -> np.ndarray:
    """Return the rows that belong to heads, int64, head by head."""
    rows: np.ndarray = (np.asarray(heads, np.int64)[:, None] * width + np.arange(width)).reshape(-1)
    return rows


def _take(
    attention: nn.Module, block: AttentionBlock, slots: AttentionSlots, heads: np.ndarray, *, bias: bool
) -> tuple[Any, Any]:
    """Return a copy of the attention with some heads, and their output projection; None twice when there are none."""
    if not len(heads):
        return None, None
    like = block.output.weight
    index = torch.from_numpy(elements_of(heads, block.width)).to(like.device)
    bias = bias and block.output.bias is not None
    inputs = [
        empty_linear(linear.in_features, len(index), like, bias=linear.bias is not None) for linear in block.inputs
    ]
    output = empty_linear(len(index), block.output.out_features, like, bias=bias)
    with torch.no_grad():
        for part, whole in zip(inputs, block.inputs, strict=True):
            part.weight.copy_(whole.weight[index])
            if part.bias is not None:
                part.bias.copy_(whole.bias[index])
        output.weight.copy_(block.output.weight[:, index])
        if bias:
            output.bias.copy_(block.output.bias)
    return _with_linears(attention, slots, inputs), output


def _with_linears(attention: nn.Module, slots: AttentionSlots, inputs: Sequence[nn.Linear]) -> nn.Module:
    """Return a copy of an attention with other queries, keys and values, and an identity for an output projection.

    The class finds the number of heads from the width of what they give it, or from its own `all_head_size`.
    """
    instead = {id(attention.get_submodule(name)): linear for name, linear in zip(slots.inputs, inputs, strict=True)}
    if slots.inner_output is not None:
        instead[id(attention.get_submodule(slots.inner_output))] = nn.Identity()
    config = getattr(attention, "config", None)
    copied = copy.deepcopy(attention, {**instead, id(config): config})
    if hasattr(copied, "all_head_size"):
        copied.all_head_size = inputs[0].out_features
    return copied
