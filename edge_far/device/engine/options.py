"""How sessions of the portable graphs are made: in file order, from one arena, with mapped constants."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from edge_far.device.engine.arena import make_arena
from edge_far.errors import BundleError
from edge_far.process.library_paths import utf8_path
from edge_far.process.limits import refuse_threads

__all__ = ["bare_options", "load_session", "session_options"]


def bare_options(threads: int) -> ort.SessionOptions:
    """Return options with so many threads, silent, for what fails is raised; Unavailable where they do not start."""
    refuse_threads(threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return options


def session_options(threads: int, *, packed: bool = False) -> ort.SessionOptions:
    """Return options that execute a graph in file order, without copies of its constants.

    `packed` has the runtime copy weights into the order in which products read them: memory for time.
    """
    options = bare_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    make_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    # A session's constants stay as long as it does: outside, they do not keep the arena from being given back.
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # A buffer that the runtime keeps for a later value of the same shape is held in between, when it holds nothing.
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    # Within a step, threads that wait a moment for the next operator spin; between steps none does.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", "0" if packed else "1")
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
