"""Runs a reconfigured torch model on a few batches, to see how large the values that its non-learners read become.

1. Frozen second linears of FFNs: behind a GELU a handful of nodes take values many times those of all others, at some
   tokens, and nothing in the weights alone says which (balance_activations.py).
2. Frozen queries, keys and values, and the first linears and gates of FFNs: a LayerNormalization's gamma and beta say
   how large its channels usually are, but not which of them now and then take a value far beyond that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from edge_far.compile.graph.builder import constant_of
from edge_far.far.heads import SplitAttention, attention_slots
from edge_far.far.nodes import SplitFfn, block_paths
from edge_far.texts.batches import Batch

__all__ = ["by_constants", "largest_inputs"]


def largest_inputs(model: torch.nn.Module, batches: Iterable[Batch], trained: Collection[str]) -> dict[str, np.ndarray]:
    """Return the largest magnitude of each number that a frozen linear of the two kinds reads, by its weight's name.

    `trained` names the parameters that are not frozen. Arrays are float32 [in]; there are none without a batch. Dropout
    is off meanwhile.
    """
    largest: dict[str, np.ndarray] = {}

    def watch(name: str) -> Any:
        def see(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            seen = arguments[0].detach().abs().flatten(0, -2).amax(0).cpu().numpy()
            largest[name] = np.maximum(largest[name], seen) if name in largest else seen

        return see

    watched = {name: module for name, module in _frozen_linears(model).items() if name not in trained}
    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in watched.items()]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                model(**_arguments(batch, next(model.parameters()).device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return largest


def by_constants(
    model: ir.Model, parameters: Mapping[str, np.ndarray], largest: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return what was seen of weights, by the names of the constants [in, out] that they became in a graph.

    `parameters` holds all parameters by name.
    """
    found: dict[str, np.ndarray] = {}
    remaining = dict(largest)  # in the order of the graph: equal matrices get their own figures
    for node in [node for node in model.graph if node.op_type == "Gemm"]:
        matrix = constant_of(node.inputs[1])
        if matrix is None:
            continue
        name = next((name for name in remaining if np.array_equal(parameters[name].T, matrix)), None)
        if name is not None:
            assert node.inputs[1] is not None
            found[str(node.inputs[1].name)] = remaining.pop(name)
    return found


def _frozen_linears(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return the linears whose inputs are to be seen, by the names of their weights."""
    found: dict[str, torch.nn.Module] = {}
    for path, module in model.named_modules():
        if isinstance(module, SplitFfn):
            linears = {name: getattr(module, name) for name in ("frozen_in", "frozen_gate", "frozen_out")}
            found |= {f"{path}.{name}.weight": linear for name, linear in linears.items() if linear is not None}
    slots = attention_slots(model)
    for path in (f"{block}.{slots.attention}" for block in block_paths(model)):
        attention = model.get_submodule(path)
        if isinstance(attention, SplitAttention):
            path, attention = f"{path}.frozen", attention.frozen
        if attention is not None:
            found |= {f"{path}.{name}.weight": attention.get_submodule(name) for name in slots.inputs}
    return found


def _arguments(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    arrays = batch.model_inputs(token_types=batch.token_type_ids is not None)
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
