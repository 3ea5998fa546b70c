"""The FFN hidden nodes of a BERT-like encoder: where they are, how they are measured, and an FFN split by them.

Node j of a block is hidden unit j of its FFN: row j of the first linear's weight, element j of its bias, and
column j of the second linear's weight; of a gated FFN also row j and element j of the gate's. These are always kept
together ("paired"); only this lets the second linear be split by columns. A block of several FFNs, one behind the
other (MobileBERT), numbers their nodes through, in the order they run. This file does not choose, train or put
anything in its place (reconfigure.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from edge_far.architectures.adapter import Architecture, FfnSlots
from edge_far.architectures.registry import TITLES, architecture_named, architecture_of_class
from edge_far.errors import Unavailable, UsageError

__all__ = [
    "Ffn",
    "FfnBlock",
    "SplitFfn",
    "Units",
    "after_blocks_of",
    "architecture_of",
    "block_paths",
    "embeddings_of",
    "empty_linear",
    "ffn_paths",
    "ffn_slots",
    "find_ffn_blocks",
    "frozen_tables_of",
    "node_l1",
]


class Units(Protocol):
    """What learners are chosen among in one block: FFN nodes here, attention heads in heads.py."""

    @property
    def units(self) -> int:
        """Return how many there are."""

    def values(self) -> list[torch.Tensor]:
        """Return the parameters that they are made of."""

    def l1(self, values: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the L1 norm of each one's part of such values, or of differences of them, float64 [units]."""


@dataclass(frozen=True, eq=False)
class Ffn:
    """One FFN: `first` is Linear(width, nodes), `second` is Linear(nodes, width); `path` is where its slots hang.

    A gated one has a `gate`, Linear(width, nodes), too. A linear may have no bias.
    """

    path: str
    first: nn.Linear
    second: nn.Linear
    gate: nn.Linear | None = None

    @property
    def nodes(self) -> int:
        """Return the number of nodes."""
        return self.first.out_features

    def values(self) -> list[torch.Tensor]:
        """Return what node_l1 measures."""
        inner = [self.first] if self.gate is None else [self.first, self.gate]
        arrays = [array for linear in inner for array in (linear.weight, linear.bias) if array is not None]
        return [*arrays, self.second.weight]


@dataclass(frozen=True, eq=False)
class FfnBlock:
    """The FFNs of one encoder block, in the order they run: one but for MobileBERT, all of one form.

    Nodes are numbered through them. `activation` is its name.
    """

    index: int
    path: str
    activation: str
    ffns: tuple[Ffn, ...]

    @property
    def units(self) -> int:
        """Return the number of nodes."""
        return sum(ffn.nodes for ffn in self.ffns)

    @property
    def width(self) -> int:
        """Return how many numbers of a token an FFN reads."""
        return self.ffns[0].first.in_features

    def by_ffn(self, nodes: np.ndarray) -> list[tuple[Ffn, np.ndarray]]:
        """Return each FFN with its own of some nodes of the block, int64, numbered from its first one."""
        starts = np.cumsum([0, *(ffn.nodes for ffn in self.ffns)])
        mine = [nodes[(start <= nodes) & (nodes < end)] - start for start, end in itertools.pairwise(starts)]
        return list(zip(self.ffns, mine, strict=True))

    def values(self) -> list[torch.Tensor]:
        """Return the values of all FFNs, equally many of each."""
        return [value for ffn in self.ffns for value in ffn.values()]

    def l1(self, values: Sequence[torch.Tensor]) -> np.ndarray:
        """Return node_l1 of such values, or of differences of them."""
        size = len(values) // len(self.ffns)
        parts = [values[start : start + size] for start in range(0, len(values), size)]
        return np.concatenate([node_l1(*part) for part in parts])


def architecture_of(model: nn.Module) -> Architecture:
    """Return what is known of a model's architecture; raises Unavailable for any other class, and for decoders."""
    known = getattr(model, "architecture", None)
    if isinstance(known, str):
        return architecture_named(known)  # a head of ours on an encoder (pooling.py)
    found = next(filter(None, (architecture_of_class(cls.__name__) for cls in type(model).__mro__)), None)
    if found is None:
        raise Unavailable(
            f"the architecture {type(model).__name__} is not supported", hint=f"supported are classifiers of {TITLES}"
        )
    if getattr(model.config, "is_decoder", False) or getattr(model.config, "add_cross_attention", False):
        raise Unavailable(f"{type(model).__name__} is configured as a decoder", hint="use an encoder")
    return found


def ffn_slots(model: nn.Module) -> FfnSlots:
    """Return the paths, from each block, of the first linear, the activation and the second linear."""
    return architecture_of(model).ffn


def find_ffn_blocks(model: nn.Module) -> tuple[FfnBlock, ...]:
    """Return the FFNs of every encoder block, in the order they run.

    Raises Unavailable for an unsupported model and UsageError for one that is reconfigured already.
    """
    blocks = zip(block_paths(model), ffn_paths(model), strict=True)
    activation = _activation_name(model)
    return tuple(
        FfnBlock(index, path, activation, tuple(_ffn_at(model, each) for each in paths))
        for index, (path, paths) in enumerate(blocks)
    )


def _ffn_at(model: nn.Module, path: str) -> Ffn:
    slots = ffn_slots(model)
    names = [name for name in (slots.first, slots.second, slots.gate) if name is not None]
    modules = dict(model.get_submodule(path).named_modules())
    found: list[Any] = [modules.get(name) for name in names]
    if not all(type(module) is nn.Linear for module in found):
        raise UsageError(
            f"the FFN is not plain linear layers ({', '.join(type(module).__name__ for module in found)})",
            where=path,
            hint="a model that was reconfigured must be merged first",
        )
    return Ffn(path, *found)


def ffn_paths(model: nn.Module) -> list[list[str]]:
    """Return, for each block, the dotted path from which each of its FFNs' slots hang, reconfigured or not."""
    earlier, paths = ffn_slots(model).earlier, []
    for path in block_paths(model):
        before = () if earlier is None else getattr(model.get_submodule(path), earlier, ())
        paths.append([*(f"{path}.{earlier}.{number}" for number in range(len(before))), path])
    return paths


def block_paths(model: nn.Module) -> tuple[str, ...]:
    """Return the dotted path of every encoder block, whether reconfigured or not."""
    layers = _from_encoder(model, architecture_of(model).blocks)
    return tuple(f"{layers}.{index}" for index in range(len(model.get_submodule(layers))))


def embeddings_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by path, the modules that run before the first block, in their order.

    First the embeddings (word, position, token type, and their LayerNorm), then their projection where there is one.
    """
    modules = dict(model.named_modules())
    paths = [_from_encoder(model, path) for path in architecture_of(model).embeddings]
    return {path: modules[path] for path in paths if path in modules}


def after_blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return, by path, the modules that run behind the last block and make the encoder's output."""
    paths = [_from_encoder(model, path) for path in architecture_of(model).after_blocks]
    return {path: model.get_submodule(path) for path in paths}


def frozen_tables_of(model: nn.Module) -> list[nn.Module]:
    """Return what makes the tables that blocks read; it learns when the embeddings do."""
    modules = dict(model.named_modules())
    paths = [_from_encoder(model, path) for path in architecture_of(model).frozen_tables]
    return [modules[path] for path in paths if path in modules]


def node_l1(*values: torch.Tensor) -> np.ndarray:
    """Return the L1 norm of each node's values, float64 [ffn].

    Takes the inner linears' weights [ffn, hidden] and biases [ffn], and last the second's weight [hidden, ffn]; given
    differences, the result is the norm of each node's change (the metric of FAR, arXiv 2205.01541, section III).
    """
    *inner, second = (value.detach().double().abs() for value in values)
    rows = sum(array.reshape(len(array), -1).sum(dim=1) for array in inner)
    total: np.ndarray = (rows + second.sum(dim=0)).cpu().numpy()
    return total


class SplitFfn(nn.Module):
    """An FFN as two dense sub-networks of which only the learners' is trained.

    `learner_in` is Linear(hidden, r), `learner_out` Linear(r, hidden) with the original, trainable bias;
    `frozen_in` is Linear(hidden, ffn - r), `frozen_out` Linear(ffn - r, hidden) without bias. A gated FFN also has
    `learner_gate` and `frozen_gate`, as wide as the inner linears. An empty side is absent (None); without learners
    `frozen_out` carries the bias, still trainable. Maps [..., hidden] to the same shape. `whole` is what it takes the
    place of, where that is more than the first linear: its dropout has no effect here.
    """

    def __init__(self, ffn: Ffn, activation: nn.Module, learners: np.ndarray, whole: nn.Module | None = None) -> None:
        super().__init__()
        chosen = np.zeros(ffn.nodes, dtype=bool)
        chosen[learners] = True
        self.activation = activation
        self.whole = (whole,)  # a tuple: no module of this one
        self.learners = np.flatnonzero(chosen)
        self.non_learners = np.flatnonzero(~chosen)
        self.learner_in, self.learner_gate, self.learner_out = _take(ffn, self.learners, bias=True)
        bias = not len(self.learners)
        self.frozen_in, self.frozen_gate, self.frozen_out = _take(ffn, self.non_learners, bias=bias)
        for linear in (self.frozen_in, self.frozen_gate):
            if linear is not None:
                linear.requires_grad_(False)
        if self.frozen_out is not None:
            self.frozen_out.weight.requires_grad_(False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the FFN's output, dropout and residual not included.

        Non-learners come first: what they computed is gone before the learners' begins, and so it is backwards.
        """
        parts = [
            outer(self.activation(inner(hidden)) if gate is None else self.activation(inner(hidden)) * gate(hidden))
            for _, inner, gate, outer in reversed(self.sides())
        ]
        return parts[-1] if len(parts) == 1 else parts[1] + parts[0]

    def sides(self) -> list[tuple[np.ndarray, Any, Any, Any]]:
        """Return indices, inner linear, gate and outer linear of learners and of non-learners, where there are any."""
        sides = (
            (self.learners, self.learner_in, self.learner_gate, self.learner_out),
            (self.non_learners, self.frozen_in, self.frozen_gate, self.frozen_out),
        )
        return [side for side in sides if side[1] is not None]

    def merged(self) -> tuple[nn.Linear, nn.Linear, nn.Linear | None]:
        """Return first linear, second linear and gate of the original FFN, holding this module's present values."""
        sides = self.sides()
        _, inner, gate, outer = sides[0]
        ffn_size = len(self.learners) + len(self.non_learners)
        first, gating = (
            None if part is None else empty_linear(part.in_features, ffn_size, part.weight, bias=part.bias is not None)
            for part in (inner, gate)
        )
        second = empty_linear(ffn_size, outer.out_features, outer.weight, bias=outer.bias is not None)
        with torch.no_grad():
            for indices, inner, gate, outer in sides:
                index = torch.from_numpy(indices).to(outer.weight.device)
                for whole, part in ((first, inner), (gating, gate)):
                    if whole is not None:
                        whole.weight[index] = part.weight
                        if whole.bias is not None:
                            whole.bias[index] = part.bias
                second.weight[:, index] = outer.weight
                if outer.bias is not None:
                    second.bias.copy_(outer.bias)
        assert first is not None
        return first, second, gating


def empty_linear(inputs: int, outputs: int, like: torch.Tensor, *, bias: bool) -> nn.Linear:
    """Return a Linear with uninitialised values, of the type and device of `like`; no random number is drawn."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, device=like.device, dtype=like.dtype)


def _take(ffn: Ffn, indices: np.ndarray, *, bias: bool) -> tuple[Any, Any, Any]:
    """Return copies of some rows of first linear and gate (None without one) and of some columns of the second.

    None three times where there are none.
    """
    if not len(indices):
        return None, None, None
    second = ffn.second
    bias = bias and second.bias is not None
    index = torch.from_numpy(indices).to(second.weight.device)
    inner, gate = (None if linear is None else _rows_of(linear, index) for linear in (ffn.first, ffn.gate))
    outer = empty_linear(len(indices), second.out_features, second.weight, bias=bias)
    with torch.no_grad():
        outer.weight.copy_(second.weight[:, index])
        if bias:
            outer.bias.copy_(second.bias)
    return inner, gate, outer


def _rows_of(linear: nn.Linear, index: torch.Tensor) -> nn.Linear:
    part = empty_linear(linear.in_features, len(index), linear.weight, bias=linear.bias is not None)
    with torch.no_grad():
        part.weight.copy_(linear.weight[index])
        if part.bias is not None:
            part.bias.copy_(linear.bias[index])
    return part


def _from_encoder(model: nn.Module, path: str) -> str:
    encoder = architecture_of(model).encoder
    return f"{encoder}.{path}" if hasattr(model, encoder) else path


def _activation_name(model: nn.Module) -> str:
    key = architecture_of(model).activation_key
    name = getattr(model.config, key)
    if not isinstance(name, str):
        raise Unavailable("the activation is a function without a name", where=f"config.{key}")
    return name
