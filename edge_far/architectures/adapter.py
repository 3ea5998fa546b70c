"""What is said of an architecture: where its parts hang in transformers' classifier, and keys of config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edge_far.architectures.config_keys import Key

__all__ = ["Architecture", "AttentionSlots", "FfnSlots"]


@dataclass(frozen=True)
class FfnSlots:
    """Where the modules of a block's FFN hang, as paths from the block.

    An FFN is second(activation(first(x))), a gated one second(activation(first(x)) * gate(x)). All of a gated one hangs
    in one module, which computes no more than this. Where a block has several, `earlier` is its list of those that run
    before, which may be missing; the paths are the same from each of these.
    """

    first: str
    activation: str
    second: str
    gate: str | None = None
    earlier: str | None = None

    @property
    def place(self) -> str:
        """Return the path of what gives way to a split FFN: the first linear, or the whole of a gated one."""
        return self.first if self.gate is None else self.first.rpartition(".")[0]


@dataclass(frozen=True)
class AttentionSlots:
    """Where a block's attention hangs: `inputs` (query, key, value) are paths from `attention`, which is one from the
    block, as `output` is.
    """

    attention: str
    inputs: tuple[str, str, str]
    output: str

    @property
    def inner_output(self) -> str | None:
        """Return the output projection's path from `attention`, or None where it hangs outside."""
        inside = self.output.startswith(f"{self.attention}.")
        return self.output.removeprefix(f"{self.attention}.") if inside else None


@dataclass(frozen=True)
class Architecture:
    """One architecture; `name` is config.json's model_type, and the manifest's.

    Of transformers: `config_class` and `model_classes` are names of classes, `encoder` is the attribute of a classifier
    that holds its encoder, `last_layer` the path of the linear layer that makes the logits. `blocks` is the path of the
    list of blocks from the encoder; with `one_block` it holds one, which runs in place of all. With `needs_a_block` the
    encoder cannot do without any, and blocks return tuples. Slots are paths from a block; without `heads_part` an
    attention is more than the sum of its heads. `embeddings` are the paths, from the encoder, of all that runs before
    the first block, in order (what a model lacks is skipped), `after_blocks` of what runs behind the last. `joined`
    names linears that the original has as one matrix, the rows of several of ours one below the other: by the path of
    the one, those of ours, all from a block.

    Of its inputs: `token_types` says whether a bundle has the input token_type_ids (pairs), the model gets zeros, or
    nothing. `first_position` is the number of the first token's position, 'padding' that behind pad_token_id's, None
    that the model counts by itself. `position_bias` is the path, from the encoder, of the module that computes a bias
    of relative positions for all blocks; its table `relative_attention_bias` counts as an embedding. With `windows`
    some blocks read the tokens near each token alone, and the encoder makes masks of two kinds. `tables` are the paths,
    from the encoder, of what makes other tables that blocks read (what a model lacks is skipped). With
    `masks_embeddings` the embeddings read the mask too, to make a padding's zero, which nothing reads; with
    `neighbours_in_embeddings` they read a token's neighbours. With `distances_in_attention` scores are also of content
    with distances. Both are computed by modules of ours (models/exchanged/).

    Of config.json: `keys` are those that decide what is computed, `other_names` are names that transformers reads too,
    `head_dropouts` are the keys of a new head's dropout, of which the first with a value counts. `table_width_key` is
    that of the embedding tables' width, `inner_width_key` that of the width within blocks, where they are narrower
    within than between, `pooling_key` that of a word, cls or mean, for what the model's own head reads.
    `answer_head` are the paths of transformers' head for answers, in order; the last is the linear layer that makes the
    logits. Where it is more than that, so is the head for tags.
    """

    name: str
    title: str
    config_class: str
    model_classes: tuple[str, ...]
    encoder: str
    blocks: str
    ffn: FfnSlots
    attention: AttentionSlots
    last_layer: str
    keys: Mapping[str, Key]
    embeddings: tuple[str, ...] = ("embeddings",)
    after_blocks: tuple[str, ...] = ()
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    token_types: Literal["pairs", "zeros", "none"] = "none"
    first_position: int | Literal["padding"] | None = 0
    position_bias: str | None = None
    tables: tuple[str, ...] = ()
    masks_embeddings: bool = False
    neighbours_in_embeddings: bool = False
    distances_in_attention: bool = False
    windows: bool = False
    head_dropouts: tuple[str, ...] = ("classifier_dropout", "hidden_dropout_prob")
    width_key: str = "hidden_size"
    table_width_key: str = "hidden_size"
    inner_width_key: str | None = None
    one_block: bool = False
    needs_a_block: bool = False
    heads_part: bool = True
    activation_key: str = "hidden_act"
    pooling_key: str | None = None
    answer_head: tuple[str, ...] = ("qa_outputs",)
    other_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def frozen_tables(self) -> tuple[str, ...]:
        """Return the paths, from the encoder, of what makes tables for the blocks; it learns when the embeddings do."""
        bias = () if self.position_bias is None else (f"{self.position_bias}.relative_attention_bias",)
        return (*self.tables, *bias)

    @property
    def dense_token_head(self) -> bool:
        """Say whether transformers' head on every token is more than one linear layer."""
        return len(self.answer_head) > 1

    def skipped_positions(self, pad_token_id: int | None) -> int:
        """Return how many rows of the position table come before that of the first token."""
        if self.first_position == "padding":
            return 1 + int(pad_token_id or 0)
        return self.first_position or 0
