"""Split every FFN into a learner and a non-learner sub-network, and put it together again.

    FFN(x)      = W2 act(W1 x + b1) + b2
    SplitFfn(x) = W2[:, L] act(W1[L] x + b1[L]) + b2 + W2[:, N] act(W1[N] x + b1[N])

L are the learners, N the non-learners. The original modules' places are kept: the split FFN sits where the
first linear was, and the activation and the second linear become identities, so dropout, residual and
LayerNorm run exactly as transformers wrote them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from edge_far.errors import ConfigError, UsageError
from edge_far.far.nodes import block_paths, embeddings_of, ffn_slots, find_ffn_blocks
from edge_far.far.select import Selection

__all__ = ["LAYOUT_VERSION", "SplitFfn", "merge", "original_layout", "reconfigure", "trained_parameters"]

LAYOUT_VERSION = 1


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
        first = _empty_linear(hidden_size, ffn_size, like, bias=True)
        second = _empty_linear(ffn_size, hidden_size, like, bias=True)
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

    Raises UsageError when the selection does not fit the model or the model is reconfigured already.
    """
    slots = ffn_slots(model)
    blocks = find_ffn_blocks(model)
    if len(selection.learners) != len(blocks):
        raise UsageError(f"the selection has {len(selection.learners)} blocks, the model {len(blocks)}")
    for block, learners in zip(blocks, selection.learners, strict=True):
        if len(learners) and not 0 <= learners.min() <= learners.max() < block.ffn_size:
            raise UsageError(f"the selection names nodes outside 0 to {block.ffn_size - 1}", where=block.path)
    for block, learners in zip(blocks, selection.learners, strict=True):
        place = f"{block.path}.{slots.activation}"
        split = SplitFfn(block.first, model.get_submodule(place), block.second, learners)
        split.train(model.training)
        model.set_submodule(f"{block.path}.{slots.first}", split)
        model.set_submodule(place, nn.Identity())
        model.set_submodule(f"{block.path}.{slots.second}", nn.Identity())


def merge(model: nn.Module) -> None:
    """Put every SplitFfn back into the original architecture, in place and bit for bit.

    All parameters of the merged FFNs are trainable again. Raises UsageError when the model is not
    reconfigured.
    """
    slots = ffn_slots(model)
    for path, split in _split_ffns(model):
        first, second = split.merged()
        model.set_submodule(f"{path}.{slots.first}", first.train(model.training))
        model.set_submodule(f"{path}.{slots.activation}", split.activation)
        model.set_submodule(f"{path}.{slots.second}", second.train(model.training))


def trained_parameters(model: nn.Module, embeddings: str = "frozen", cut: int = 0) -> dict[str, nn.Parameter]:
    """Set `requires_grad` of every parameter as FAR trains it, and return the trained ones by name.

    Trained are attention, the encoder's LayerNorms, learners, the second linears' biases and the head, and
    with `embeddings='train'` also the embeddings and their LayerNorm. A model that is not reconfigured counts
    as one whose nodes all learn. Of the first `cut` blocks nothing trains, and no embedding. Raises ConfigError for
    another value of `embeddings`.
    """
    if embeddings not in ("frozen", "train"):
        raise ConfigError(f"embeddings is '{embeddings}'", where="embeddings", hint="one of frozen, train")
    frozen: set[int] = set()
    if embeddings == "train" and cut:
        raise ConfigError("embeddings below the cut cannot train", where="embeddings", hint="use --method far or full")
    for path in block_paths(model)[:cut]:
        frozen.update(id(parameter) for parameter in model.get_submodule(path).parameters())
    if embeddings == "frozen":
        frozen.update(id(parameter) for parameter in embeddings_of(model)[1].parameters())
    for module in model.modules():
        if isinstance(module, SplitFfn) and module.frozen_in is not None:
            frozen.update(id(p) for p in (*module.frozen_in.parameters(), module.frozen_out.weight))
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
        if parameter.requires_grad:
            trained[name] = parameter
    return trained


def original_layout(model: nn.Module) -> dict[str, Any]:
    """Return how each parameter of the original model is composed from those of the reconfigured `model`.

    The result is plain JSON, so that a device merges with NumPy alone::

        {"version": 1,
         "learners": [[0, 5, ...], ...],            per block: the sorted learner indices
         "ffn_sizes": [3072, ...],                  per block: all nodes
         "parameters": {ORIGINAL_NAME: COMPOSITION, ...}}      in the original state_dict's order

    COMPOSITION is a string, the reconfigured parameter that holds the value unchanged; or it is `{"block": b,
    "axis": a, "learner": NAME or null, "frozen": NAME or null}`: the original array has `ffn_sizes[b]`
    elements along axis a (0: rows of the first linear's weight and its bias; 1: columns of the second
    linear's weight). Those at `learners[b]` are the learner array's, in order; all others, in ascending
    order, are the frozen array's. null stands for an empty side. Every parameter of the reconfigured model
    appears exactly once. Raises UsageError when the model is not reconfigured.
    """
    slots = ffn_slots(model)
    splits = _split_ffns(model)
    composed: dict[str, dict[str, Any]] = {}
    for block, (path, split) in enumerate(splits):
        composed.update(_compositions(f"{path}.{slots.first}", f"{path}.{slots.second}", block, split))
    inside_splits = tuple(f"{path}.{slots.first}." for path, _ in splits)
    parameters: dict[str, Any] = {}
    for path, module in model.named_modules():
        if path in composed:
            parameters.update(composed[path])
        elif not path.startswith(inside_splits):
            parameters.update({name: name for name, _ in module.named_parameters(path, recurse=False)})
    return {
        "version": LAYOUT_VERSION,
        "learners": [split.learners.tolist() for _, split in splits],
        "ffn_sizes": [len(split.learners) + len(split.non_learners) for _, split in splits],
        "parameters": parameters,
    }


def _compositions(first: str, second: str, block: int, split: SplitFfn) -> dict[str, dict[str, Any]]:
    """Return, by path of the original linear, the compositions of its weight and bias."""
    learner = f"{first}.learner_" if split.learner_in is not None else None
    frozen = f"{first}.frozen_" if split.frozen_in is not None else None

    def parts(suffix: str, axis: int) -> dict[str, Any]:
        return {
            "block": block,
            "axis": axis,
            "learner": learner and learner + suffix,
            "frozen": frozen and frozen + suffix,
        }

    return {
        first: {f"{first}.weight": parts("in.weight", 0), f"{first}.bias": parts("in.bias", 0)},
        second: {
            f"{second}.weight": parts("out.weight", 1),
            f"{second}.bias": f"{learner or frozen}out.bias",
        },
    }


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
    inner = _empty_linear(first.in_features, len(indices), first.weight, bias=True)
    outer = _empty_linear(len(indices), second.out_features, second.weight, bias=bias)
    with torch.no_grad():
        inner.weight.copy_(first.weight[index])
        inner.bias.copy_(first.bias[index])
        outer.weight.copy_(second.weight[:, index])
        if bias:
            outer.bias.copy_(second.bias)
    return inner, outer


def _empty_linear(inputs: int, outputs: int, like: torch.Tensor, *, bias: bool) -> nn.Linear:
    """Return a Linear with uninitialised values; no random number is drawn."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, device=like.device, dtype=like.dtype)
