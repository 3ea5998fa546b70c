"""The portable backend: trains with the stock onnxruntime wheel.

Parameters and gradients are NumPy arrays that the sessions read and write in place: a parameter is an input of both
graphs, and `acc.p` and `grad.p` of the step graph are bound to one buffer, so that micro-batches add up without a copy.
All sessions take their activations from one arena, and nothing in a graph is reordered after export.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.arena import SHRINK, make_arena
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.constants import MappedConstants
from edge_far.device.engine.dropout import draw_mask, factor_table, mask_shape
from edge_far.device.engine.options import load_session, session_options
from edge_far.device.engine.prefix import PrefixRunner
from edge_far.errors import BundleError
from edge_far.texts.batches import Batch, padded_length

__all__ = ["PortableBackend"]


class PortableBackend:
    """Runs the step graphs and infer.onnx of a bundle on `parameters`, which it does not copy."""

    name = "portable"

    def __init__(
        self,
        bundle: Bundle,
        parameters: dict[str, np.ndarray],
        threads: int,
        *,
        dropout: bool = True,
        arena_mib: float | None = None,
    ) -> None:
        """Raises BundleError when the parameters do not fit the bundle; a graph is loaded when it is first used.

        `arena_mib` is what the plan expects of activations; the process' first backend makes the arena for it.
        """
        make_arena(arena_mib)
        self.bundle = bundle
        self.parameters = parameters
        self.threads = threads
        self.dropout = dropout
        portable = bundle.manifest.portable
        for parameter in portable.parameters:
            found = parameters.get(parameter.name)
            if found is None or found.shape != parameter.shape or found.dtype != np.float32:
                raise BundleError(f"parameter {parameter.name} is missing or not float32 {parameter.shape}")
        self.gradients = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in parameters.items()}
        self._sums = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self.gradients.items()}
        self._factors = {mask.factors: factor_table(mask.probability, active=dropout) for mask in portable.masks}
        self._loss = np.zeros((), np.float32)
        self._loss_value = ort.OrtValue.ortvalue_from_numpy(self._loss)
        self._constants = MappedConstants(bundle)
        self._sessions: dict[str, ort.InferenceSession] = {}
        self._prefix: PrefixRunner | None = None

    def accumulate(self, batch: Batch, loss_scale: float, key: DropoutKey | None, variant: str = "step") -> float:
        """Add one micro-batch's gradients; see Backend."""
        self._begin(variant)
        return self._step(batch, loss_scale, key, variant, None)

    def _step(
        self, batch: Batch, loss_scale: float, key: DropoutKey | None, variant: str, options: ort.RunOptions | None
    ) -> float:
        step = self._session(variant)
        feeds = self._inputs(batch)
        feeds["labels"] = batch.labels
        feeds["loss_scale"] = np.array(loss_scale, np.float32)
        feeds |= self._factors
        rows, length = batch.input_ids.shape
        for node, mask in enumerate(self.bundle.manifest.portable.masks):
            shape = mask_shape(mask, rows, length)
            if key is None and self.dropout:
                raise ValueError("dropout needs a key")
            drawn = draw_mask(mask, node, shape, key) if key is not None and self.dropout else np.zeros(shape, np.uint8)
            feeds[mask.name] = drawn
        binding = self._bound(step, feeds)
        for name in self._values:
            binding.bind_ortvalue_input(f"acc.{name}", self._sums[name])
            binding.bind_ortvalue_output(f"grad.{name}", self._sums[name])
        binding.bind_ortvalue_output("loss", self._loss_value)
        self._run(step, binding, options)
        return float(self._loss)

    def logits(self, batch: Batch) -> np.ndarray:
        """Run the inference graph; see Backend."""
        self._begin(self.bundle.manifest.portable.steps[0].name)
        infer = self._session("infer")
        binding = self._bound(infer, self._inputs(batch))
        found = np.empty(self.bundle.manifest.task.logits_shape(*batch.input_ids.shape), np.float32)
        binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(found))
        self._run(infer, binding)
        return found

    def close(self) -> None:
        """Give the arena's memory back to the C library, and drop the sessions."""
        if self._sessions:
            self._shrink_arena(next(iter(self._sessions)))  # the first is always a step's, see _begin
        self._sessions.clear()
        self._prefix = None

    def _begin(self, variant: str) -> None:
        """Shrink the arena before its first use: only then does it heed the size of its region (arena.py)."""
        if not self._sessions:
            self._shrink_arena(variant)

    def _shrink_arena(self, variant: str) -> None:
        """Run the shortest step there is, which adds nothing: the arena gives back what is free after it."""
        ids = np.zeros((1, padded_length(1)), np.int64)
        task = self.bundle.manifest.task
        labels = np.zeros(task.targets_shape(*ids.shape), np.int64 if task.names_classes else np.float32)
        batch = Batch(ids, np.ones_like(ids), None, labels, self._no_hidden(ids))
        self._step(batch, 0.0, DropoutKey(0, 0, 0), variant, SHRINK)

    def _no_hidden(self, ids: np.ndarray) -> np.ndarray | None:
        prefix = self.bundle.manifest.portable.prefix
        if prefix is None:
            return None
        return np.zeros((len(ids), prefix.width) if prefix.pooled else (*ids.shape, prefix.width), np.float32)

    def _inputs(self, batch: Batch) -> dict[str, np.ndarray]:
        """Return what a step or infer reads of the texts: ids, or hidden states, which the prefix makes if need be."""
        manifest = self.bundle.manifest
        portable = manifest.portable
        if portable.prefix is None:
            return batch.model_inputs(token_types=portable.token_types)
        hidden = batch.hidden
        if hidden is None:
            if self._prefix is None:
                self._prefix = PrefixRunner(self.bundle, portable.prefix, self.threads, self._constants)
            hidden = self._prefix.batch(batch)
        feeds = {"hidden": hidden}
        if manifest.selection.cut < manifest.model.blocks:  # a head alone reads no mask
            feeds["attention_mask"] = batch.attention_mask
        return feeds

    def _bound(self, session: ort.InferenceSession, feeds: Mapping[str, np.ndarray]) -> ort.IOBinding:
        """Bind parameters and feeds where they are; a copy of the runtime's own would hold a place in the arena."""
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.require(array, requirements="C")))
        for name, value in self._values.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def _run(
        self, session: ort.InferenceSession, binding: ort.IOBinding, options: ort.RunOptions | None = None
    ) -> None:
        """Run a graph; raises MemoryError, or BundleError where it does not fit what the manifest says of it."""
        try:
            session.run_with_iobinding(binding, options)
        except Exception as error:  # ONNX Runtime's exceptions share no useful base class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if "allocat" in reason:  # "Failed to allocate memory", "bad allocation"
                raise MemoryError(reason) from error
            message = f"its graphs do not fit manifest.json: {reason[:200]}"
            raise BundleError(message, where=str(self.bundle.root), hint="export the bundle again") from error

    def _session(self, graph: str) -> ort.InferenceSession:
        """Return the session of a graph; loads it when it is used for the first time."""
        if graph not in self._sessions:
            path: Path = self.bundle.path(f"portable/{graph}.onnx")
            options = session_options(self.threads)
            self._constants.give_to(options, graph)
            self._sessions[graph] = load_session(path, options)
        return self._sessions[graph]
