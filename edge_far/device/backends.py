"""Chooses the training engine by name; imports only the one that is chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_far.bundle import Bundle
from edge_far.device.arrays import read_arrays
from edge_far.device.backend import Backend
from edge_far.errors import Unavailable

__all__ = ["BackendFactory", "choose_backend"]

BackendFactory = Callable[[dict[str, np.ndarray]], Backend]


def choose_backend(
    name: str, bundle: Bundle, threads: int, *, dropout: bool
) -> tuple[BackendFactory, str, dict[str, np.ndarray]]:
    """Return a factory of engines on given learners, the engine's name, and the bundle's initial learners.

    'auto' is the portable backend. Raises Unavailable when the one asked for cannot run here.
    """
    learners = read_arrays(bundle.path("learners.safetensors"))
    if name in ("auto", "portable"):
        from edge_far.device.session import PortableBackend

        return lambda values: PortableBackend(bundle, values, threads, dropout=dropout), "portable", learners
    from edge_far.device.ort_training import OrtTrainingBackend, available

    reason = available(bundle)
    if reason is not None:
        raise Unavailable(f"the ort-training backend cannot run here: {reason}", hint="use --backend portable")
    return (
        lambda values: OrtTrainingBackend(bundle, values, threads, dropout=dropout),
        "ort-training",
        learners,
    )
