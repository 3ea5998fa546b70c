"""Split every FFN, and where asked every attention, into learners and non-learners, and put them together again.

    FFN(x)      = W2 act(W1 x + b1) + b2
    SplitFfn(x) = W2[:, L] act(W1[L] x + b1[L]) + b2 + W2[:, N] act(W1[N] x + b1[N])

L are the learners, N the non-learners; a gated FFN has W2 (act(W1 x + b1) * (G x + g)) for the one and its rows of G
and g for the others. The original modules' places are kept: the split FFN sits where the first linear was, and the
activation and the second linear become identities, so dropout, residual and LayerNorm run exactly as transformers wrote
them (of a gated FFN it takes the place of the whole). The modules are nodes.SplitFfn and heads.SplitAttention.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from edge_far.architectures.adapter import FfnSlots
from edge_far.errors import ConfigError, UsageError
from edge_far.far.heads import AttentionBlock, SplitAttention, attention_slots, find_attention_blocks
from edge_far.far.nodes import (
    Ffn,
    FfnBlock,
    SplitFfn,
    after_blocks_of,
    architecture_of,
    block_paths,
    embeddings_of,
    ffn_paths,
    ffn_slots,
    find_ffn_blocks,
    frozen_tables_of,
)
from edge_far.far.select import Selection

__all__ = ["LAYOUT_VERSION", "merge", "original_layout", "reconfigure", "trained_parameters"]

LAYOUT_VERSION = 3


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
        for ffn, nodes in block.by_ffn(learners):
            _split_ffn(model, slots, ffn, nodes)


def _check_fit(selection: Selection, blocks: Sequence[FfnBlock | AttentionBlock], kind: str) -> None:
    if len(selection.learners) != len(blocks):
        raise UsageError(f"the selection has {len(selection.learners)} blocks, the model {len(blocks)}")
    for block, learners in zip(blocks, selection.learners, strict=True):
        if len(learners) and not 0 <= learners.min() <= learners.max() < block.units:
            raise UsageError(f"the selection names {kind} outside 0 to {block.units - 1}", where=block.path)


def _split_ffn(model: nn.Module, slots: FfnSlots, ffn: Ffn, learners: np.ndarray) -> None:
    activation, place = f"{ffn.path}.{slots.activation}", f"{ffn.path}.{slots.place}"
    whole = None if slots.gate is None else model.get_submodule(place)
    split = SplitFfn(ffn, model.get_submodule(activation), learners, whole)
    model.set_submodule(place, split.train(model.training))
    if whole is None:
        model.set_submodule(activation, nn.Identity())
        model.set_submodule(f"{ffn.path}.{slots.second}", nn.Identity())


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
        first, second, gate = split.merged()
        if gate is not None and slots.gate is not None:
            model.set_submodule(f"{path}.{slots.place}", split.whole[0])
            model.set_submodule(f"{path}.{slots.gate}", gate.train(model.training))
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
    whose nodes all learn. Of the first `cut` blocks nothing trains, and no embedding; where these are all blocks, nor
    does what stands behind them. Raises ConfigError for another value of `embeddings`.
    """
    if embeddings not in ("frozen", "train"):
        raise ConfigError(f"embeddings is '{embeddings}'", where="embeddings", hint="one of frozen, train")
    frozen: set[int] = set()
    if embeddings == "train" and cut:
        raise ConfigError("embeddings below the cut cannot train", where="embeddings", hint="use --method far or full")
    for path in block_paths(model)[:cut]:
        frozen.update(id(parameter) for parameter in model.get_submodule(path).parameters())
    if cut == len(block_paths(model)):
        for module in after_blocks_of(model).values():
            frozen.update(id(parameter) for parameter in module.parameters())
    if embeddings == "frozen":
        for module in (*embeddings_of(model).values(), *frozen_tables_of(model)):
            frozen.update(id(parameter) for parameter in module.parameters())
    for module in model.modules():
        if isinstance(module, SplitFfn) and module.frozen_in is not None:
            gate = () if module.frozen_gate is None else module.frozen_gate.parameters()
            frozen.update(id(p) for p in (*module.frozen_in.parameters(), *gate, module.frozen_out.weight))
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

        {"version": 3,
         "groups": {"nodes": {"width": 1, "counts": [3072, ...], "learners": [[1, 5, ...], ...]},
                    "heads": {"width": 64, "counts": [12, ...], "learners": [[3], ...]}},
         "parameters": {ORIGINAL_NAME: COMPOSITION, ...}}

    `counts` and `learners` are per block (of nodes per FFN, where a block has several); the group "heads" is there
    where attentions are split. COMPOSITION is a string, the reconfigured parameter that holds the value unchanged; or
    it is `{"group": g, "block": b, "axis": a, "learner": NAME or null, "frozen": NAME or null}`: along axis a (0 rows,
    1 columns) the original array has `counts[b]` units of `width` elements each. Those of the units at `learners[b]`
    are the learner array's, in order; all others, in ascending order, are the frozen array's. null stands for an empty
    side. Or it is `{"joined": [COMPOSITION, ...]}`: these, of equally many rows, one below the other. Every parameter
    of the reconfigured model appears exactly once. Raises UsageError when the model is not reconfigured.
    """
    slots, places = ffn_slots(model), attention_slots(model)
    splits, attentions = _split_ffns(model), _split_attentions(model)
    composed: dict[str, dict[str, Any]] = {}
    for block, (path, split) in enumerate(splits):
        composed |= _node_compositions(path, slots, block, split)
    for block, (path, attention) in enumerate(attentions):
        composed |= _head_compositions(f"{path}.{places.attention}", f"{path}.{places.output}", block, attention)
    inside_splits = tuple(
        [f"{path}.{slots.place}." for path, _ in splits] + [f"{path}.{places.attention}." for path, _ in attentions]
    )
    parameters: dict[str, Any] = {}
    for path, module in model.named_modules():
        if path in composed:
            parameters.update(composed[path])
        elif not path.startswith(inside_splits):
            parameters.update({name: name for name, _ in module.named_parameters(path, recurse=False)})
    for path in block_paths(model):
        _join(parameters, path, architecture_of(model).joined)
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


def _join(parameters: dict[str, Any], path: str, joined: Mapping[str, tuple[str, ...]]) -> None:
    """Put in a block's compositions the original's one matrix, or bias, in the place of ours."""
    for whole, parts in joined.items():
        for kind in ("weight", "bias"):
            names = [f"{path}.{part}.{kind}" for part in parts]
            if names[0] in parameters:
                parameters[f"{path}.{whole}.{kind}"] = {"joined": [parameters.pop(name) for name in names]}


def _node_compositions(path: str, slots: FfnSlots, block: int, split: SplitFfn) -> dict[str, dict[str, Any]]:
    """Return the compositions of an FFN's linears, by the paths of the modules that stand there now."""
    here = f"{path}.{slots.place}"
    learner = f"{here}.learner_" if split.learner_in is not None else None
    frozen = f"{here}.frozen_" if split.frozen_in is not None else None
    place = {"group": "nodes", "block": block}
    _, inner, gate, outer = split.sides()[0]
    inputs: dict[str, Any] = {}
    for name, part, linear in ((slots.first, "in", inner), (slots.gate, "gate", gate)):
        if linear is not None:
            sides = (learner and learner + part, frozen and frozen + part)
            inputs |= _of_linear(f"{path}.{name}", {**place, "axis": 0}, *sides, bias=linear.bias is not None)
    second = f"{path}.{slots.second}"
    output: dict[str, Any] = {f"{second}.weight": _parts({**place, "axis": 1}, learner, frozen, "out.weight")}
    if outer.bias is not None:
        output[f"{second}.bias"] = f"{learner or frozen}out.bias"
    return {here: inputs, second: output} if slots.gate is None else {here: inputs | output}


def _head_compositions(attention: str, output: str, block: int, split: SplitAttention) -> dict[str, dict[str, Any]]:
    """Return the compositions of an attention's four linears, by the paths of the modules that stand there now."""
    learner = f"{attention}.learner" if split.learner is not None else None
    frozen = f"{attention}.frozen" if split.frozen is not None else None
    place = {"group": "heads", "block": block}
    inputs: dict[str, Any] = {}
    for name in split.slots.inputs:
        sides = (learner and f"{learner}.{name}", frozen and f"{frozen}.{name}")
        bias = (split.learner or split.frozen).get_submodule(name).bias is not None
        inputs |= _of_linear(f"{attention}.{name}", {**place, "axis": 0}, *sides, bias=bias)
    projection: dict[str, Any] = {f"{output}.weight": _parts({**place, "axis": 1}, learner, frozen, "_out.weight")}
    if (split.learner_out or split.frozen_out).bias is not None:
        projection[f"{output}.bias"] = f"{learner or frozen}_out.bias"
    if split.slots.inner_output is not None:
        return {attention: inputs | projection}
    return {attention: inputs, output: projection}


def _of_linear(
    name: str, place: dict[str, Any], learner: str | None, frozen: str | None, *, bias: bool
) -> dict[str, Any]:
    """Return the compositions of weight and bias of a linear that is split by its rows."""
    parts = ("weight", "bias") if bias else ("weight",)
    return {f"{name}.{part}": _parts(place, learner, frozen, f".{part}") for part in parts}


def _parts(place: dict[str, Any], learner: str | None, frozen: str | None, suffix: str) -> dict[str, Any]:
    return {**place, "learner": learner and learner + suffix, "frozen": frozen and frozen + suffix}


def _split_attentions(model: nn.Module) -> list[tuple[str, SplitAttention]]:
    slots = attention_slots(model)
    found = [(path, model.get_submodule(f"{path}.{slots.attention}")) for path in block_paths(model)]
    return [(path, module) for path, module in found if isinstance(module, SplitAttention)]


def _split_ffns(model: nn.Module) -> list[tuple[str, SplitFfn]]:
    slots = ffn_slots(model)
    paths = itertools.chain.from_iterable(ffn_paths(model))
    found = [(path, model.get_submodule(f"{path}.{slots.place}")) for path in paths]
    if not all(isinstance(module, SplitFfn) for _, module in found):
        raise UsageError("the model is not reconfigured")
    return found
