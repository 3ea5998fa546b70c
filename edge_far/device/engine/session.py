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

from edge_far.bundle import Bundle
from edge_far.device.engine.arena import SHRINK, make_arena
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.constants import MappedConstants
from edge_far.device.engine.dropout import draw_mask, factor_table, mask_shape
from edge_far.errors import BundleError
from edge_far.process.library_paths import utf8_path
from edge_far.texts.batches import Batch, padded_length

__all__ = ["PortableBackend", "load_session", "session_options"]


def session_options(threads: int) -> ort.SessionOptions:
    """Return options that execute a graph in file order, without copies of its constants."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    make_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A session's constants stay as long as it does: outside, they do not keep the arena from being given back.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # A buffer that the runtime keeps for a later value of the same shape is held in between, when it holds nothing.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    # Within a step, threads that wait a moment for the next operator spin; between steps none does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def load_session(path: Path, options: ort.SessionOptions) -> ort.InferenceSession:
    """Return a session on the CPU; raises BundleError where this ONNX Runtime refuses the graph."""
    try:
        with utf8_path(path) as name:
            return ort.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no useful base class
        reason = str(error).splitlines()[0]
        raise BundleError(
            f"ONNX Runtime {ort.__version__} refuses the graph: {reason}",
            where=str(path),
            hint="use the ONNX Runtime of edge-far's requirements, or export the bundle again",
        ) from error


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

    def accumulate(self, batch: Batch, loss_scale: float, key: DropoutKey | None, variant: str = "step") -> float:
        """Add one micro-batch's gradients; see Backend."""
        self._begin(variant)
        return self._step(batch, loss_scale, key, variant, None)

    def _step(
        self, batch: Batch, loss_scale: float, key: DropoutKey | None, variant: str, options: ort.RunOptions | None
    ) -> float:
        step = self._session(variant)
        feeds = batch.model_inputs(token_types=self.bundle.manifest.portable.token_types)
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
        step.run_with_iobinding(binding, options)
        return float(self._loss)

    def logits(self, batch: Batch) -> np.ndarray:
        """Run the inference graph; see Backend."""
        self._begin(self.bundle.manifest.portable.steps[0].name)
        infer = self._session("infer")
        binding = self._bound(infer, batch.model_inputs(token_types=self.bundle.manifest.portable.token_types))
        found = np.empty((len(batch.labels), len(self.bundle.manifest.labels)), np.float32)
        binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(found))
        infer.run_with_iobinding(binding)
        return found

    def close(self) -> None:
        """Give the arena's memory back to the C library, and drop the sessions."""
        if self._sessions:
            self._shrink_arena(next(iter(self._sessions)))  # the first is always a step's, see _begin
        self._sessions.clear()

    def _begin(self, variant: str) -> None:
        """Shrink the arena before its first use: only then does it heed the size of its region (arena.py)."""
        if not self._sessions:
            self._shrink_arena(variant)

    def _shrink_arena(self, variant: str) -> None:
        """Run the shortest step there is, which adds nothing: the arena gives back what is free after it."""
        ids = np.zeros((1, padded_length(1)), np.int64)
        self._step(Batch(ids, np.ones_like(ids), None, ids[0, :1]), 0.0, DropoutKey(0, 0, 0), variant, SHRINK)

    def _bound(self, session: ort.InferenceSession, feeds: Mapping[str, np.ndarray]) -> ort.IOBinding:
        """Bind parameters and feeds where they are; a copy of the runtime's own would hold a place in the arena."""
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.require(array, requirements="C")))
        for name, value in self._values.items():
            binding.bind_ortvalue_input(name, value)
        return binding

    def _session(self, graph: str) -> ort.InferenceSession:
        """Return the session of a graph; loads it when it is used for the first time."""
        if graph not in self._sessions:
            path: Path = self.bundle.path(f"portable/{graph}.onnx")
            options = session_options(self.threads)
            self._constants.give_to(options, graph)
            self._sessions[graph] = load_session(path, options)
        return self._sessions[graph]
