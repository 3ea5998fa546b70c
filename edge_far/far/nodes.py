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

from edge_far.errors import Unavailable, UsageError

__all__ = [
    "SUPPORTED_MODELS",
    "FfnBlock",
    "FfnSlots",
    "Units",
    "architecture_of",
    "block_paths",
    "embeddings_of",
    "empty_linear",
    "ffn_slots",
    "find_ffn_blocks",
    "node_l1",
]

SUPPORTED_MODELS = {
    "BertForSequenceClassification": "bert",
    "BertModel": "bert",
    "DistilBertForSequenceClassification": "distilbert",
    "DistilBertModel": "distilbert",
    "RobertaForSequenceClassification": "roberta",
    "RobertaModel": "roberta",
}


class Units(Protocol):
    """What learners are chosen among in one block: FFN nodes here, attention heads in heads.py."""

    @property
    def units(self) -> int:
        """Return how many there are."""

    def values(self) -> list[torch.Tensor]:
        """Return the parameters that they are made of."""

    def l1(self, values: Sequence[torch.Tensor]) -> np.ndarray:
        """Return the L1 norm of each one's part of such values, or of differences of them, float64 [units]."""


@dataclass(frozen=True)
class FfnSlots:
    """Where the three modules of a block's FFN hang, as paths from the block."""

    first: str
    activation: str
    second: str


_BERT_SLOTS = FfnSlots("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense")
_SLOTS = {
    "bert": _BERT_SLOTS,
    "roberta": _BERT_SLOTS,
    "distilbert": FfnSlots("ffn.lin1", "ffn.activation", "ffn.lin2"),
}
_BLOCKS = {"bert": "encoder.layer", "roberta": "encoder.layer", "distilbert": "transformer.layer"}


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


def architecture_of(model: nn.Module) -> str:
    """Return 'bert', 'distilbert' or 'roberta'.

    Raises Unavailable for any other model class, and for decoders.
    """
    known = getattr(model, "architecture", None)
    if isinstance(known, str) and known in _BLOCKS:
        return known  # a head of ours on an encoder (pooling.py)
    supported = "supported are " + ", ".join(sorted(SUPPORTED_MODELS))
    for cls in type(model).__mro__:
        if cls.__name__ in SUPPORTED_MODELS:
            break
    else:
        raise Unavailable(f"the architecture {type(model).__name__} is not supported", hint=supported)
    if getattr(model.config, "is_decoder", False) or getattr(model.config, "add_cross_attention", False):
        raise Unavailable(f"{type(model).__name__} is configured as a decoder", hint="use an encoder")
    return SUPPORTED_MODELS[cls.__name__]


def ffn_slots(model: nn.Module) -> FfnSlots:
    """Return the paths, from each block, of the first linear, the activation and the second linear."""
    return _SLOTS[architecture_of(model)]


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
    layers = _base_path(model) + _BLOCKS[architecture_of(model)]
    return tuple(f"{layers}.{index}" for index in range(len(model.get_submodule(layers))))


def embeddings_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Return path and module of the embeddings: word, position, token type, and their LayerNorm."""
    path = _base_path(model) + "embeddings"
    return path, model.get_submodule(path)


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


def _base_path(model: nn.Module) -> str:
    architecture = architecture_of(model)
    return f"{architecture}." if hasattr(model, architecture) else ""


def _activation_name(model: nn.Module) -> str:
    key = "activation" if architecture_of(model) == "distilbert" else "hidden_act"
    name = getattr(model.config, key)
    if not isinstance(name, str):
        raise Unavailable("the activation is a function without a name", where=f"config.{key}")
    return name
