"""Times one operator of every kernel of a bundle on this machine.

    python -m edge_far.device.planning.probe BUNDLE THREADS MIB OUT

Runs probe.onnx at a few batch shapes, smallest first, with the options of training, and reads each
operator's time from ONNX Runtime's own profile. Ends after SECONDS, however slow the machine. Shapes whose inputs would
not fit the MIB that this process may take are left out.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.bundles.manifest import Mask
from edge_far.device.board.memory import MIB, resident_set, use_one_heap
from edge_far.device.engine.backend import DropoutKey, packs_weights
from edge_far.device.engine.constants import MappedConstants
from edge_far.device.engine.dropout import draw_mask
from edge_far.device.engine.options import load_session, session_options
from edge_far.device.optimizers.base import clipped_step
from edge_far.device.optimizers.registry import OPTIMIZERS, make_optimizer
from edge_far.device.planning.machine_speed import answer_measured
from edge_far.device.planning.parts import value_at
from edge_far.errors import BudgetError, StorageError
from edge_far.process.library_paths import utf8_path

__all__ = ["measure"]

SECONDS = 8.0
INPUTS_MIB = 128.0
# What an operator's output and the profile take, relative to all inputs.
INPUTS_SHARE = 0.5
# Batch and sequence: tokens for products, positions for attention, sizes from a core's cache to main memory.
SHAPES = ((1, 16), (2, 16), (4, 16), (1, 64), (2, 128), (1, 256), (8, 128), (2, 512), (16, 128))
SHAPES_BESIDE = ((1, 16), (1, 64), (8, 16), (1, 256))
REPEATS = 9  # the first of which warms up
LARGEST_CACHE_MIB = 32.0
MASK_BYTES = 32 * 1024
PARAMETERS = 1 << 20

_TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
_TYPES |= {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(float16)": np.float16}


def measure(bundle: Bundle, threads: int, room_mib: float, seconds: float = SECONDS) -> dict[str, Any]:
    """Return the measured part of a calibration (see machine_speed.Calibration) within `room_mib`.

    Raises BudgetError where there is no room for the smallest shape.
    """
    kernels, node_seconds = _time_operators(bundle, threads, room_mib, seconds)
    beside: dict[str, list[list[float]]] = {}
    if threads > 1 and bundle.manifest.portable.prefix is not None:
        with suppress(BudgetError):  # no room for a run a thread: then the plan will hardly have any
            beside, _ = _time_operators(bundle, 1, room_mib, seconds / 4, at_once=threads)
    return {
        "kernels": kernels,
        "kernels_beside": beside,
        "node_seconds": node_seconds,
        "mask_byte_seconds": _time_mask(),
        "parameter_seconds": {name: _time_update(name) for name in OPTIMIZERS},
    }


def _time_operators(
    bundle: Bundle, threads: int, room_mib: float, seconds: float, at_once: int = 1
) -> tuple[dict[str, list[list[float]]], float]:
    """Return the points of each kernel, and a node's seconds; with `at_once`, of so many runs side by side.

    Those are of one text each or of a few short ones, as the prefix computes them then.
    """
    operators = bundle.manifest.portable.probe
    longest = bundle.manifest.defaults.max_seq_len
    asked = SHAPES if at_once == 1 else SHAPES_BESIDE
    shapes = list(dict.fromkeys((batch, min(sequence, longest)) for batch, sequence in asked))
    with (
        tempfile.TemporaryDirectory(prefix="edge-far-profile-") as folder,
        utf8_path(Path(folder, "profile")) as prefix,
    ):
        options = session_options(threads, packed=packs_weights(bundle.manifest.portable, at_once))
        options.enable_profiling = True
        options.profile_file_prefix = prefix
        constants = MappedConstants(bundle)  # must outlive the session
        constants.give_to(options, "probe")
        session = load_session(bundle.path("portable/probe.onnx"), options)
        portable = bundle.manifest.portable
        weights_mib = (portable.step_constant_bytes + portable.embedding_bytes) / MIB
        trained_mib = 4 * bundle.manifest.trained_parameters / MIB
        between = np.zeros(int(min(weights_mib + trained_mib, LARGEST_CACHE_MIB) * MIB), np.uint8)
        left = room_mib - resident_set().now_mib - weights_mib - between.nbytes / MIB
        most = min(left * INPUTS_SHARE, INPUTS_MIB)
        sized = [shape for shape in shapes if at_once * _inputs_mib(session, *shape) <= most]
        if not sized:
            raise BudgetError(f"{max(room_mib, 0):.0f} MiB are too few to measure the machine's speed")
        runs = _run_shapes(session, sized, time.monotonic() + seconds, between, at_once)
        events = _events(Path(session.end_profiling()))
        del session
    times: dict[str, list[float]] = {}
    whole: list[float] = []
    for event in events:
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            times.setdefault(name.removesuffix("_kernel_time"), []).append(event["dur"] / 1e6)
        elif name == "model_run":
            whole.append(event["dur"] / 1e6)
    kernels: dict[str, list[list[float]]] = {}
    for number, operator in enumerate(operators):
        points = []
        for shape in dict.fromkeys(runs):
            found = [times[f"k{number}"][run] for run, ran in enumerate(runs) if ran == shape]
            # A profile counts whole microseconds.
            taken = max(statistics.median(found[at_once:] or found), 0.5e-6)
            points.append([value_at(operator.size, *shape), value_at(operator.work, *shape), taken])
        kernels[operator.kernel] = sorted(points)
    besides = [total - sum(each[run] for each in times.values()) for run, total in enumerate(whole)]
    return kernels, max(0.0, statistics.median(besides) / len(times))


def _events(path: Path) -> list[dict[str, Any]]:
    """Return the events of the runtime's profile; raises StorageError where it was not written whole."""
    try:
        events: list[dict[str, Any]] = json.loads(path.read_bytes())
        return events
    except (OSError, ValueError) as error:  # the runtime does not tell of a failed write
        hint = "free space there, or name another directory with TMPDIR"
        raise StorageError("the runtime's profile is not complete", where=str(path.parent), hint=hint) from error


def _run_shapes(
    session: ort.InferenceSession,
    shapes: Sequence[tuple[int, int]],
    deadline: float,
    between: np.ndarray,
    at_once: int = 1,
) -> list[tuple[int, int]]:
    """Run the probe at each shape until time is up, `at_once` side by side; return the shape of each run.

    A step reads all its weights before it reads one again: so much (`between`) passes the caches before each run.
    """
    runs: list[tuple[int, int]] = []

    def repeat(binding: ort.IOBinding, fewest: int) -> int:
        for number in range(REPEATS):
            if number >= fewest and time.monotonic() > deadline:
                return number
            between.fill(0)
            session.run_with_iobinding(binding)
        return REPEATS

    with ThreadPoolExecutor(at_once) as pool:
        for shape in shapes:
            inputs = _inputs(session, *shape)  # must outlive the bindings
            bindings = [_bound(session, inputs) for _ in range(at_once)]
            done = sum(pool.map(repeat, bindings, [0 if runs else 2] * at_once))
            runs += [shape] * done
            if done < at_once * REPEATS:
                break
    return runs


def _bound(session: ort.InferenceSession, inputs: Mapping[str, np.ndarray]) -> ort.IOBinding:
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return binding


def _described(
    session: ort.InferenceSession, batch: int, sequence: int
) -> list[tuple[str, tuple[int, ...], np.dtype[Any]]]:
    """Return name, shape and type of each input at a batch shape."""
    values = {
        "batch": batch,
        "sequence": sequence,
        "sequence/8": sequence // 8,
        "batch*sequence": batch * sequence,
        "2*sequence": 2 * sequence,
        "2*sequence-1": 2 * sequence - 1,
        "2*sequence*sequence": 2 * sequence**2,
        "2*sequence*sequence-sequence": 2 * sequence**2 - sequence,
    }
    described = []
    for each in session.get_inputs():
        shape = tuple(dim if isinstance(dim, int) else values[dim] for dim in each.shape)
        described.append((each.name, shape, np.dtype(_TYPES[each.type])))
    return described


def _inputs_mib(session: ort.InferenceSession, batch: int, sequence: int) -> float:
    return sum(math.prod(shape) * dtype.itemsize for _, shape, dtype in _described(session, batch, sequence)) / MIB


def _inputs(session: ort.InferenceSession, batch: int, sequence: int) -> Mapping[str, np.ndarray]:
    """Return arrays for all inputs."""
    noise = np.random.default_rng(0).standard_normal(4096).astype(np.float32)
    arrays = {}
    for name, shape, dtype in _described(session, batch, sequence):
        # Indices must lie inside any table: zeros. All else is noise, for its speed to be that of usual numbers.
        array = np.zeros(shape, dtype) if dtype.kind == "i" and dtype.itemsize > 1 else None
        arrays[name] = np.resize(noise, shape).astype(dtype) if array is None else array
    return arrays


def _time_mask() -> float:
    mask = Mask("probe", (MASK_BYTES,), 0.1, "probe")
    return _median_seconds(lambda: draw_mask(mask, 0, (MASK_BYTES,), DropoutKey(0, 0, 0))) / MASK_BYTES


def _time_update(name: str) -> float:
    """Time what the trainer does between two batches, on PARAMETERS numbers."""
    parameters = {"probe": np.zeros((PARAMETERS // 1024, 1024), np.float32)}
    gradients = {"probe": np.full((PARAMETERS // 1024, 1024), 1e-3, np.float32)}
    optimizer = make_optimizer(name, parameters, weight_decay=0.01, no_decay=())

    return _median_seconds(lambda: clipped_step(optimizer, gradients, 1e-4, 1.0)) / PARAMETERS


def _median_seconds(action: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def main(arguments: Sequence[str]) -> int:
    """Measure for a bundle, and write the document; return the exit code."""
    root, threads, room_mib, out = arguments
    use_one_heap()
    return answer_measured(out, lambda: measure(open_bundle(Path(root)), int(threads), float(room_mib)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
