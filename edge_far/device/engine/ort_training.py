"""The ort-training backend: trains with onnxruntime-training, where its wheel exists (it needs torch).

It runs the artifacts in ort/ of a bundle by the package's own Module, and asks it for gradients only: the
optimiser is ours, as with every backend. Module keeps a copy of the parameters, refreshed before every run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import DROPOUT_FACTOR
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.options import bare_options
from edge_far.device.engine.prefix import PrefixRunner
from edge_far.errors import BundleError, EdgeFarError, Unavailable
from edge_far.process.packages import training_package_missing
from edge_far.texts.batches import Batch

__all__ = ["OrtTrainingBackend", "available"]

FILES = ("ort/training_model.onnx", "ort/eval_model.onnx", "ort/checkpoint")
HINT = "use --backend portable"
ITS_OWN_WORDS = "[ONNXRuntimeError]"


def available(bundle: Bundle) -> str | None:
    """Return None where this backend can train `bundle`, else the reason why not; imports nothing heavy."""
    missing = training_package_missing()
    if missing is not None:
        return missing
    if not bundle.manifest.ort_training or any(name not in bundle.manifest.files for name in FILES):
        return "the bundle was exported without the ort/ artifacts"
    return None


class OrtTrainingBackend:
    """Runs ort/training_model.onnx and ort/eval_model.onnx of a bundle; see backend.Backend."""

    name = "ort-training"

    def __init__(
        self, bundle: Bundle, parameters: dict[str, np.ndarray], threads: int, *, dropout: bool = True
    ) -> None:
        """Load both graphs; raises Unavailable, or BundleError when the parameters or graphs do not fit."""
        reason = available(bundle)
        if reason is not None:
            raise Unavailable(reason, where="--backend ort-training", hint=HINT)
        self.bundle, self.threads = bundle, threads
        self._prefix: PrefixRunner | None = None
        self.parameters = parameters
        self.dropout = dropout
        self.gradients = {name: np.zeros_like(array) for name, array in parameters.items()}
        paths = [bundle.path(name) for name in FILES]
        with _engine_errors(str(bundle.root)):
            self._module, self._state = _load(paths, threads)
        for parameter in bundle.manifest.portable.parameters:
            found = parameters.get(parameter.name)
            if found is None or found.shape != parameter.shape or found.dtype != np.float32:
                raise BundleError(f"parameter {parameter.name} is missing or not float32 {parameter.shape}")
            if parameter.name not in self._state.parameters:
                raise BundleError(f"it has no parameter {parameter.name}", where=str(paths[2]), hint="export again")

    def accumulate(self, batch: Batch, loss_scale: float, key: DropoutKey | None, variant: str = "step") -> float:
        """Add one micro-batch's gradients; see Backend.

        Masks come from this engine's generator, restarted from `key`: not those of the portable backend.
        """
        active = self.dropout and key is not None
        if key is not None and active:
            _seed(key)
        loss = self._run(batch, batch.labels, training=True, dropout=active)[0]
        scale = np.float32(loss_scale * len(batch.labels))  # the engine's loss is the mean of the rows
        for name, total in self.gradients.items():
            gradient = self._state.parameters[name].grad
            gradient *= scale  # in the engine's own buffer, which the next run resets
            total += gradient
        return float(loss) * float(scale)

    def logits(self, batch: Batch) -> np.ndarray:
        """Run the evaluation graph; see Backend."""
        return np.array(self._run(batch, np.zeros_like(batch.labels), training=False, dropout=False)[1])

    def close(self) -> None:
        """Drop both graphs and the engine's copy of the parameters."""
        del self._module, self._state

    def _hidden(self, batch: Batch) -> np.ndarray | None:
        prefix = self.bundle.manifest.portable.prefix
        if prefix is None or batch.hidden is not None:
            return batch.hidden
        if self._prefix is None:
            self._prefix = PrefixRunner(self.bundle, prefix, self.threads)
        return self._prefix.batch(batch)

    def _run(self, batch: Batch, labels: np.ndarray, *, training: bool, dropout: bool) -> Any:
        types = batch.token_type_ids
        feeds = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "token_type_ids": np.zeros_like(batch.input_ids) if types is None else types,
            "hidden": self._hidden(batch),
            "labels": labels,
            DROPOUT_FACTOR: np.array(dropout, np.float32),
        }
        with _engine_errors("--backend ort-training"):
            for name, array in self.parameters.items():
                self._state.parameters[name] = array
            self._module.train(training)
            if training:
                self._module.lazy_reset_grad()
            return self._module(*(feeds[name] for name in self._module.input_names()))


def _load(paths: list[Path], threads: int) -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package imports deprecated parts of torch
        from onnxruntime.training.api import CheckpointState, Module
    options = bare_options(threads)
    options.enable_mem_pattern = False  # patterns are kept for every shape
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    training, evaluation, checkpoint = paths
    state = CheckpointState.load_checkpoint(checkpoint)
    return Module(training, state, evaluation, session_options=options), state


def _seed(key: DropoutKey) -> None:
    """Restart the engine's generator, one for the process, so that masks depend on the key alone."""
    import onnxruntime as ort

    words = np.random.SeedSequence([key.seed, key.step, key.micro_batch]).generate_state(1, np.uint64)
    ort.set_seed(int(words[0] >> np.uint64(1)))


@contextmanager
def _engine_errors(where: str) -> Iterator[None]:
    """Turn what the engine raises into MemoryError, or BundleError where its graphs do not do."""
    try:
        yield
    except (EdgeFarError, MemoryError):
        raise
    except Exception as error:  # the engine's exceptions share no useful base class
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = reason[max(reason.find(ITS_OWN_WORDS), 0) :]  # behind a place in its source
        if "allocat" in reason:  # "Failed to allocate memory", "bad allocation"
            raise MemoryError(reason) from error
        raise BundleError(f"onnxruntime-training failed: {reason[:200]}", where=where, hint=HINT) from error
