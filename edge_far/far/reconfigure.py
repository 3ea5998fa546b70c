"""Split every FFN, and where asked every attention, into learners and non-learners, and put them together again.

    FFN(x)      = W2 act(W1 x + b1) + b2
    SplitFfn(x) = W2[:, L] act(W1[L] x + b1[L]) + b2 + W2[:, N] act(W1[N] x + b1[N])

L are the learners, N the non-learners. The original modules' places are kept: the split FFN sits where the
first linear was, and the activation and the second linear become identities, so dropout, residual and
LayerNorm run exactly as transformers wrote them. Attentions are split by heads.SplitAttention in the same manner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_far.errors import ConfigError, UsageError
from edge_far.far.heads import AttentionBlock, SplitAttention, attention_slots, find_attention_blocks
from edge_far.far.nodes import (
    FfnBlock,
    block_paths,
    embeddings_of,
    empty_linear,
    ffn_slots,
    find_ffn_blocks,
    frozen_tables_of,
)
from edge_far.far.select import Selection

__all__ = ["LAYOUT_VERSION", "SplitFfn", "merge", "original_layout", "reconfigure", "trained_parameters"]

LAYOUT_VERSION = 2


class SplitFfn(nn.Module):
    """An FFN as two dense sub-networks of which only the learners' is trained.

    `learner_in` is Linear(hidden, r), `learner_out` Linear(r, hidden) with the original, trainable bias;
    `frozen_in` is Linear(hidden, ffn - r), `frozen_out` Linear(ffn - r, hidden) without bias. An empty side
    is absent (None); without learners `frozen_out` carries the bias, still trainable. Maps [..., hidden] to
    the same shape.
    """

    def __init__(self, first: nn.Linear, activation: nn.Module, second: nn.Linear, learners: np.ndarray) -> None:
        super().__init__()
        chosen = np.zeros(first.out_features, dtype=bool)
        chosen[learners] = True
        self.activation = activation
        self.learners = np.flatnonzero(chosen)
        self.non_learners = np.flatnonzero(~chosen)
        self.learner_in, self.learner_out = _take(first, second, self.learners, bias=True)
        self.frozen_in, self.frozen_out = _take(first, second, self.non_learners, bias=not len(self.learners))
        if self.frozen_in is not None:
            self.frozen_in.requires_grad_(False)
            self.frozen_out.weight.requires_grad_(False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the FFN's output, dropout and residual not included."""
        if self.frozen_in is None:
            return self.learner_out(self.activation(self.learner_in(hidden)))
        frozen = self.frozen_out(self.activation(self.frozen_in(hidden)))
        if self.learner_in is None:
            return frozen
        return self.learner_out(self.activation(self.learner_in(hidden))) + frozen

    def merged(self) -> tuple[nn.Linear, nn.Linear]:
        """Return first and second linear of the original FFN, holding this module's present values."""
        sides = [
            (indices, inner, outer)
            for indices, inner, outer in (
                (self.learners, self.learner_in, self.learner_out),
                (self.non_learners, self.frozen_in, self.frozen_out),
            )
            if inner is not None
        ]
        ffn_size = len(self.learners) + len(self.non_learners)
        hidden_size = sides[0][1].in_features
        like = sides[0][1].weight
        first = empty_linear(hidden_size, ffn_size, like, bias=True)
        second = empty_linear(ffn_size, hidden_size, like, bias=True)
        with torch.no_grad():
            for indices, inner, outer in sides:
                index = torch.from_numpy(indices).to(like.device)
                first.weight[index] = inner.weight
                first.bias[index] = inner.bias
                second.weight[:, index] = outer.weight
                if outer.bias is not None:
                    second.bias.copy_(outer.bias)
        return first, second


def reconfigure(model: nn.Module, selection: Selection) -> None:
    """Replace every FFN of `model` by a SplitFfn, in place; the outputs stay the same up to rounding.

    Where heads are selected, every attention becomes a SplitAttention. Raises UsageError when the selection does not
    fit the model or the model is reconfigured already.
    """
    slots = ffn_slots(model)
    blocks = find_ffn_blocks(model)
    attentions = find_attention_blocks(model) if selection.heads is not None else ()
    _check_fit(selection, blocks, "nodes")
    if selection.heads is not None:
        _check_fit(selection.heads, attentions, "heads")
        for attention, heads in zip(attentions, selection.heads.learners, strict=True):
            _split_attention(model, attention, heads)
    for block, learners in zip(blocks, selection.learners, strict=True):
        place = f"{block.path}.{slots.activation}"
        split = SplitFfn(block.first, model.get_submodule(place), block.second, learners)
        split.train(model.training)
        model.set_submodule(f"{block.path}.{slots.first}", split)
        model.set_submodule(place, nn.Identity())
        model.set_submodule(f"{block.path}.{slots.second}", nn.Identity())


def _check_fit(selection: Selection, blocks: Sequence[FfnBlock | AttentionBlock], kind: str) -> None:
    if len(selection.learners) != len(blocks):
        raise UsageError(f"the selection has {len(selection.learners)} blocks, the model {len(blocks)}")
    for block, learners in zip(blocks, selection.learners, strict=True):
        if len(learners) and not 0 <= learners.min() <= learners.max() < block.units:
            raise UsageError(f"the selection names {kind} outside 0 to {block.units - 1}", where=block.path)


def _split_attention(model: nn.Module, block: AttentionBlock, heads: np.ndarray) -> None:
    slots = attention_slots(model)
    place = f"{block.path}.{slots.attention}"
    split = SplitAttention(model.get_submodule(place), block, slots, heads)
    if slots.inner_output is None:
        model.set_submodule(f"{block.path}.{slots.output}", nn.Identity())
    model.set_submodule(place, split.train(model.training))


def merge(model: nn.Module) -> None:
    """Put every SplitFfn and SplitAttention back into the original architecture, in place and bit for bit.

    All parameters of what is merged are trainable again. Raises UsageError when the model is not
    reconfigured.
    """
    slots = ffn_slots(model)
    for path, split in _split_ffns(model):
        first, second = split.merged()
        model.set_submodule(f"{path}.{slots.first}", first.train(model.training))
        model.set_submodule(f"{path}.{slots.activation}", split.activation)
        model.set_submodule(f"{path}.{slots.second}", second.train(model.training))
    places = attention_slots(model)
    for path, attention in _split_attentions(model):
        original, output = attention.merged()
        model.set_submodule(f"{path}.{places.attention}", original.requires_grad_(True).train(model.training))
        model.set_submodule(f"{path}.{places.output}", output.train(model.training))


def trained_parameters(model: nn.Module, embeddings: str = "frozen", cut: int = 0) -> dict[str, nn.Parameter]:
    """Set `requires_grad` of every parameter as FAR trains it, and return the trained ones by name.

    Trained are attention (where it is split, the heads that learn and the output projection's bias), the encoder's
    LayerNorms, learners, the second linears' biases and the head, and with `embeddings='train'` also the embeddings,
    their LayerNorm and projection, and a table of relative positions. A model that is not reconfigured counts as one
    whose nodes all learn. Of the first `cut` blocks nothing trains, and no embedding. Raises ConfigError for another
    value of `embeddings`.
    """
    if embeddings not in ("frozen", "train"):
        raise ConfigError(f"embeddings is '{embeddings}'", where="embeddings", hint="one of frozen, train")
    frozen: set[int] = set()
    if embeddings == "train" and cut:
        raise ConfigError("embeddings below the cut cannot train", where="embeddings", hint="use --method far or full")
    for path in block_paths(model)[:cut]:
        frozen.update(id(parameter) for parameter in model.get_submodule(path).parameters())
    if embeddings == "frozen":
        for module in (*embeddings_of(model).values(), *frozen_tables_of(model)):
            frozen.update(id(parameter) for parameter in module.parameters())
    for module in model.modules():
        if isinstance(module, SplitFfn) and module.frozen_in is not None:
            frozen.update(id(p) for p in (*module.frozen_in.parameters(), module.frozen_out.weight))
        if isinstance(module, SplitAttention) and module.frozen is not None:
            frozen.update(id(p) for p in (*module.frozen.parameters(), module.frozen_out.weight))
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
        if parameter.requires_grad:
            trained[name] = parameter
    return trained


def original_layout(model: nn.Module) -> dict[str, Any]:
    """Return how each parameter of the original model is composed from those of the reconfigured one.

    The document is plain JSON; a device merges a training result by it, without torch:

        {"version": 2,
         "groups": {"nodes": {"width": 1, "counts": [3072, ...], "learners": [[1, 5, ...], ...]},
                    "heads": {"width": 64, "counts": [12, ...], "learners": [[3], ...]}},
         "parameters": {ORIGINAL_NAME: COMPOSITION, ...}}

    `counts` and `learners` are per block; the group "heads" is there where attentions are split. COMPOSITION is a
    string, the reconfigured parameter that holds the value unchanged; or it is `{"group": g, "block": b, "axis": a,
    "learner": NAME or null, "frozen": NAME or null}`: along axis a (0 rows, 1 columns) the original array has
    `counts[b]` units of `width` elements each. Those of the units at `learners[b]` are the learner array's, in order;
    all others, in ascending order, are the frozen array's. null stands for an empty side. Every parameter of the
    reconfigured model appears exactly once. Raises UsageError when the model is not reconfigured.
    """
    slots, places = ffn_slots(model), attention_slots(model)
    splits, attentions = _split_ffns(model), _split_attentions(model)
    composed: dict[str, dict[str, Any]] = {}
    for block, (path, split) in enumerate(splits):
        composed |= _node_compositions(f"{path}.{slots.first}", f"{path}.{slots.second}", block, split)
    for block, (path, attention) in enumerate(attentions):
        composed |= _head_compositions(f"{path}.{places.attention}", f"{path}.{places.output}", block, attention)
    inside_splits = tuple(
        [f"{path}.{slots.first}." for path, _ in splits] + [f"{path}.{places.attention}." for path, _ in attentions]
    )
    parameters: dict[str, Any] = {}
    for path, module in model.named_modules():
        if path in composed:
            parameters.update(composed[path])
        elif not path.startswith(inside_splits):
            parameters.update({name: name for name, _ in module.named_parameters(path, recurse=False)})
    groups = {"nodes": _group(1, [split for _, split in splits])}
    if attentions:
        groups["heads"] = _group(attentions[0][1].width, [split for _, split in attentions])
    return {"version": LAYOUT_VERSION, "groups": groups, "parameters": parameters}


def _group(width: int, splits: Sequence[SplitFfn | SplitAttention]) -> dict[str, Any]:
    return {
        "width": width,
        "counts": [len(split.learners) + len(split.non_learners) for split in splits],
        "learners": [split.learners.tolist() for split in splits],
    }


def _node_compositions(first: str, second: str, block: int, split: SplitFfn) -> dict[str, dict[str, Any]]:
    """Return, by path of the original linear, the compositions of its weight and bias."""
    learner = f"{first}.learner_" if split.learner_in is not None else None
    frozen = f"{first}.frozen_" if split.frozen_in is not None else None
    place = {"group": "nodes", "block": block}
    return {
        first: _of_linear(first, {**place, "axis": 0}, learner and f"{learner}in", frozen and f"{frozen}in"),
        second: {
            f"{second}.weight": _parts({**place, "axis": 1}, learner, frozen, "out.weight"),
            f"{second}.bias": f"{learner or frozen}out.bias",
        },
    }


def _head_compositions(attention: str, output: str, block: int, split: SplitAttention) -> dict[str, dict[str, Any]]:
    """Return the compositions of an attention's four linears, by the paths of the modules that stand there now."""
    learner = f"{attention}.learner" if split.learner is not None else None
    frozen = f"{attention}.frozen" if split.frozen is not None else None
    place = {"group": "heads", "block": block}
    inputs: dict[str, Any] = {}
    for name in split.slots.inputs:
        sides = (learner and f"{learner}.{name}", frozen and f"{frozen}.{name}")
        inputs |= _of_linear(f"{attention}.{name}", {**place, "axis": 0}, *sides)
    projection = {
        f"{output}.weight": _parts({**place, "axis": 1}, learner, frozen, "_out.weight"),
        f"{output}.bias": f"{learner or frozen}_out.bias",
    }
    if split.slots.inner_output is not None:
        return {attention: inputs | projection}
    return {attention: inputs, output: projection}


def _of_linear(name: str, place: dict[str, Any], learner: str | None, frozen: str | None) -> dict[str, Any]:
    """Return the compositions of weight and bias of a linear that is split by its rows."""
    return {f"{name}.{part}": _parts(place, learner, frozen, f".{part}") for part in ("weight", "bias")}


def _parts(place: dict[str, Any], learner: str | None, frozen: str | None, suffix: str) -> dict[str, Any]:
    return {**place, "learner": learner and learner + suffix, "frozen": frozen and frozen + suffix}


def _split_attentions(model: nn.Module) -> list[tuple[str, SplitAttention]]:
    slots = attention_slots(model)
    found = [(path, model.get_submodule(f"{path}.{slots.attention}")) for path in block_paths(model)]
    return [(path, module) for path, module in found if isinstance(module, SplitAttention)]


def _split_ffns(model: nn.Module) -> list[tuple[str, SplitFfn]]:
    slots = ffn_slots(model)
    found = [(path, model.get_submodule(f"{path}.{slots.first}")) for path in block_paths(model)]
    if not all(isinstance(module, SplitFfn) for _, module in found):
        raise UsageError("the model is not reconfigured")
    return found


def _take(first: nn.Linear, second: nn.Linear, indices: np.ndarray, *, bias: bool) -> tuple[Any, Any]:
    """Return copies of the rows of `first` and the columns of `second`, or None twice when there are none."""
    if not len(indices):
        return None, None
    index = torch.from_numpy(indices).to(first.weight.device)
    inner = empty_linear(first.in_features, len(indices), first.weight, bias=True)
    outer = empty_linear(len(indices), second.out_features, second.weight, bias=bias)
    with torch.no_grad():
        inner.weight.copy_(first.weight[index])
        inner.bias.copy_(first.bias[index])
        outer.weight.copy_(second.weight[:, index])
        if bias:
            outer.bias.copy_(second.bias)
    return inner, outer
