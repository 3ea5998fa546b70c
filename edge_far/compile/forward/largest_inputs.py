"""Runs a reconfigured torch model on a few batches, to see how large the values that its non-learners read become.

Only what the frozen second linears read is of interest: behind a GELU a handful of nodes take values many times those
of all others, at some tokens, and nothing in the weights alone says which (balance_activations.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from edge_far.far.reconfigure import SplitFfn
from edge_far.texts.batches import Batch

__all__ = ["largest_inputs"]


def largest_inputs(model: torch.nn.Module, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Return the largest magnitude of each number that a frozen second linear reads, by the name of its weight.

    Arrays are float32 [nodes]; there are none without a batch. Dropout is off meanwhile.
    """
    largest: dict[str, np.ndarray] = {}

    def watch(name: str) -> Any:
        def see(_: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            seen = arguments[0].detach().abs().flatten(0, -2).amax(0).cpu().numpy()
            largest[name] = np.maximum(largest[name], seen) if name in largest else seen

        return see

    hooks = [
        module.frozen_out.register_forward_pre_hook(watch(f"{path}.frozen_out.weight"))
        for path, module in model.named_modules()
        if isinstance(module, SplitFfn) and module.frozen_out is not None
    ]
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


def _arguments(batch: Batch, device: torch.device) -> dict[str, torch.Tensor]:
    arrays = batch.model_inputs(token_types=batch.token_type_ids is not None)
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
