"""Chooses the training engine by name; imports only the one that is chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_far.bundles.arrays import read_learners
from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.backend import Backend
from edge_far.errors import Unavailable

__all__ = ["BackendFactory", "choose_backend", "why_not_here"]

OLDEST_ONNXRUNTIME = (1, 23)

# Makes an engine of learners and of the MiB that its activations are expected to take, None where nobody can say.
BackendFactory = Callable[[dict[str, np.ndarray], float | None], Backend]


def choose_backend(
    name: str, bundle: Bundle, threads: int, *, dropout: bool
) -> tuple[BackendFactory, str, dict[str, np.ndarray]]:
    """Return a factory of engines on given learners, the engine's name, and the bundle's initial learners.

    'auto' is the portable backend, or ort-training where the ONNX Runtime is the old one of onnxruntime-training.
    Raises Unavailable when the one asked for cannot run here.
    """
    learners = read_learners(bundle.path("learners.safetensors"))
    too_old = why_not_here()
    if name == "portable" and too_old is not None:
        hint = "use --backend ort-training, or the device's environment (.venv-device of a checkout)"
        raise Unavailable(f"the portable backend cannot run here: {too_old}", hint=hint)
    if name == "portable" or (name == "auto" and too_old is None):
        from edge_far.device.engine.session import PortableBackend

        return (
            lambda values, arena: PortableBackend(bundle, values, threads, dropout=dropout, arena_mib=arena),
            "portable",
            learners,
        )
    from edge_far.device.engine.ort_training import OrtTrainingBackend, available

    reason = available(bundle)
    if reason is not None and name == "auto":
        hint = "take the device's environment (.venv-device of a checkout)"
        raise Unavailable(f"no backend can run here: {too_old}; ort-training: {reason}", hint=hint)
    if reason is not None:
        raise Unavailable(f"the ort-training backend cannot run here: {reason}", hint="use --backend portable")
    return (
        lambda values, _: OrtTrainingBackend(bundle, values, threads, dropout=dropout),
        "ort-training",
        learners,
    )


def why_not_here() -> str | None:
    """Say why the installed ONNX Runtime cannot train a bundle's portable graphs, or None."""
    import onnxruntime

    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if version >= OLDEST_ONNXRUNTIME:
        return None
    return f"it needs onnxruntime {'.'.join(map(str, OLDEST_ONNXRUNTIME))} or newer, this is {onnxruntime.__version__}"
