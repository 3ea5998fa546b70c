"""The FFN hidden nodes of a BERT-like encoder: where they are, and how they are measured.

Node j of a block is hidden unit j of its FFN: row j of the first linear's weight, element j of its bias, and
column j of the second linear's weight. The three are always kept together ("paired"); only this lets the
second linear be split by columns. This file finds the blocks; it does not choose, train or change anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from edge_far.architectures.adapter import Architecture, FfnSlots
from edge_far.architectures.registry import TITLES, architecture_named, architecture_of_class
from edge_far.errors import Unavailable, UsageError

__all__ = [
    "FfnBlock",
    "Units",
    "architecture_of",
    "block_paths",
    "embeddings_of",
    "empty_linear",
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
class FfnBlock:
    """The FFN of one encoder block: `first` is Linear(hidden, ffn), `second` is Linear(ffn, hidden)."""

    index: int
    path: str
    hidden_size: int
    ffn_size: int
    first: nn.Linear
    second: nn.Linear
    activation: str

    @property
    def units(self) -> int:
        """Return the number of nodes."""
        return self.ffn_size

    def values(self) -> list[torch.Tensor]:
        """Return what node_l1 measures."""
        return [self.first.weight, self.first.bias, self.second.weight]

    def l1(self, values: Sequence[torch.Tensor]) -> np.ndarray:
        """Return node_l1 of such values, or of differences of them."""
        return node_l1(*values)


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
    """Return the FFN of every encoder block, in the order they run.

    Raises Unavailable for an unsupported model and UsageError for one that is reconfigured already.
    """
    slots = ffn_slots(model)
    blocks = []
    for index, path in enumerate(block_paths(model)):
        first = model.get_submodule(f"{path}.{slots.first}")
        second = model.get_submodule(f"{path}.{slots.second}")
        if type(first) is not nn.Linear or type(second) is not nn.Linear:
            raise UsageError(
                f"the FFN is not two plain linear layers ({type(first).__name__}, {type(second).__name__})",
                where=path,
                hint="a model that was reconfigured must be merged first",
            )
        blocks.append(
            FfnBlock(
                index=index,
                path=path,
                hidden_size=first.in_features,
                ffn_size=first.out_features,
                first=first,
                second=second,
                activation=_activation_name(model),
            )
        )
    return tuple(blocks)


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


def frozen_tables_of(model: nn.Module) -> list[nn.Module]:
    """Return the tables that blocks read and that learn when the embeddings do."""
    return [model.get_submodule(_from_encoder(model, path)) for path in architecture_of(model).frozen_tables]


def node_l1(first_weight: torch.Tensor, first_bias: torch.Tensor, second_weight: torch.Tensor) -> np.ndarray:
    """Return the L1 norm of each node's values, float64 [ffn].

    Takes first_weight [ffn, hidden], first_bias [ffn] and second_weight [hidden, ffn]; given differences, the
    result is the norm of each node's change (the metric of FAR, arXiv 2205.01541, section III).
    """
    rows = first_weight.detach().double().abs().sum(dim=1)
    columns = second_weight.detach().double().abs().sum(dim=0)
    total: np.ndarray = (rows + first_bias.detach().double().abs() + columns).cpu().numpy()
    return total


def empty_linear(inputs: int, outputs: int, like: torch.Tensor, *, bias: bool) -> nn.Linear:
    """Return a Linear with uninitialised values, of the type and device of `like`; no random number is drawn."""
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, device=like.device, dtype=like.dtype)


def _from_encoder(model: nn.Module, path: str) -> str:
    encoder = architecture_of(model).encoder
    return f"{encoder}.{path}" if hasattr(model, encoder) else path


def _activation_name(model: nn.Module) -> str:
    key = architecture_of(model).activation_key
    name = getattr(model.config, key)
    if not isinstance(name, str):
        raise Unavailable("the activation is a function without a name", where=f"config.{key}")
    return name
