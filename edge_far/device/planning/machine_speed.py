"""How quick this machine is: the seconds of every kernel that a bundle uses, measured once and cached.

The measurement is that of probe.py, in a process of its own, so that nothing of it stays in this one's memory. A file
of the cache belongs to one machine (its cores and CPU quota included), ONNX Runtime, number of threads and set of
operators; a damaged one is measured again. Refuses to know what a step consists of: that is step_times.py's.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Manifest
from edge_far.console import Console, say
from edge_far.device.board.cpu import cpu_name, cpu_share
from edge_far.device.optimizers.registry import OPTIMIZERS
from edge_far.errors import EdgeFarError
from edge_far.process.children import child_environment, module_command
from edge_far.process.privacy import cache_directory
from edge_far.storage import write_json

__all__ = ["Calibration", "answer_measured", "calibrate", "machine_name", "measure_apart"]

FORMAT = 2
# The probe stops after 10 s; a slow board also needs time to start Python and to verify the bundle.
TIMEOUT_S = 120.0

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Calibration:
    """What was measured, and on what; `kernels` holds (size, work, seconds) by kernel, ascending in size.

    Sizes and works are those of the bundle's ProbedOperator. `node_seconds` is what any operator costs besides,
    `mask_byte_seconds` drawing a byte of dropout bits, `parameter_seconds` norm, update and clearing of one trained
    number, by optimiser.
    """

    machine: str
    onnxruntime: str
    threads: int
    kernels: Mapping[str, tuple[Point, ...]]
    node_seconds: float
    mask_byte_seconds: float
    parameter_seconds: Mapping[str, float]

    @property
    def source(self) -> str:
        """Return where predicted times come from, in words."""
        return f"{self.machine}, {self.threads} thread{'s' * (self.threads > 1)}, onnxruntime {self.onnxruntime}"


def calibrate(bundle: Bundle, threads: int, console: Console, room_mib: float) -> Calibration | None:
    """Return the cached measurement of this machine for a bundle's operators, or measure now (about 10 s).

    The measuring process may take `room_mib`. Returns None, and says why, where measuring fails: a plan without times
    is still a plan.
    """
    import onnxruntime

    identity = {
        "format": FORMAT,
        "machine": machine_name(),
        "onnxruntime": onnxruntime.__version__,
        "threads": threads,
        "operators": _fingerprint(bundle.manifest),
    }
    directory = cache_directory()
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = None if directory is None else directory / f"calibration-{key}.json"
    known = _read(path, identity, bundle.manifest)
    if known is not None:
        return known
    console.info("measuring this machine's speed (once; about 10 s)")
    measured, reason = _measure(bundle, threads, room_mib)
    if measured is None:
        console.warn(f"no times are predicted: {reason}")
        return None
    document = {**identity, "measured": measured}
    found = _decode(document, identity, bundle.manifest)
    if found is not None and path is not None:
        _store(path, document, console)
    return found


def machine_name() -> str:
    """Return the processor's or the board's name, and the cores and the quota that this process may use."""
    return f"{cpu_name()}, {cpu_share().text}"


def _fingerprint(manifest: Manifest) -> str:
    operators = [asdict(operator) for operator in manifest.portable.probe]
    return hashlib.sha256(json.dumps(operators, sort_keys=True).encode()).hexdigest()


def measure_apart(module: str, *words: object) -> tuple[dict[str, Any] | None, str]:
    """Run a module of ours in a process of its own, and return the document it wrote, or why there is none.

    `words` are its arguments; the last one, which is added here, names the file for its answer.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="edge-far-probe-") as folder:
            answer = Path(folder, "measured.json")
            return _answer_of([*module_command(module), *map(str, words), str(answer)], answer)
    except OSError as error:
        return None, f"the probe does not start: {error.strerror or error}"


def answer_measured(out: str, measure: Callable[[], Mapping[str, Any]]) -> int:
    """In that process: write what is measured where `measure_apart` reads it; return the exit code."""
    try:
        write_json(Path(out), measure())
    except EdgeFarError as error:
        say(str(error))
        return error.exit_code
    return 0


def _measure(bundle: Bundle, threads: int, room_mib: float) -> tuple[dict[str, Any] | None, str]:
    return measure_apart("edge_far.device.planning.probe", bundle.root, threads, room_mib)


def _answer_of(command: list[str], answer: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, env=child_environment())
    except subprocess.TimeoutExpired:
        return None, f"the probe took more than {TIMEOUT_S:.0f} s"
    if done.returncode or not answer.is_file():
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        return None, f"the probe failed: {lines[-1] if lines else f'exit code {done.returncode}'}"
    document: dict[str, Any] = json.loads(answer.read_bytes())
    return document, ""


def _store(path: Path, document: Mapping[str, Any], console: Console) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, document)
    except (OSError, EdgeFarError) as error:
        console.info(f"the measurement cannot be kept in {path.parent}: {error}")


def _read(path: Path | None, identity: Mapping[str, Any], manifest: Manifest) -> Calibration | None:
    if path is None:
        return None
    try:
        return _decode(json.loads(path.read_bytes()), identity, manifest)
    except (OSError, ValueError, RecursionError):
        return None


def _decode(document: Any, identity: Mapping[str, Any], manifest: Manifest) -> Calibration | None:
    """Return the calibration in a document, or None where it is not what the identity promises."""
    try:
        if any(document[name] != value for name, value in identity.items()):
            return None
        measured = document["measured"]
        kernels = {
            operator.kernel: tuple(_point(point) for point in measured["kernels"][operator.kernel])
            for operator in manifest.portable.probe
        }
        rates = [float(measured[name]) for name in ("node_seconds", "mask_byte_seconds")]
        updates = {name: float(measured["parameter_seconds"][name]) for name in OPTIMIZERS}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if not all(kernels.values()) or not all(math.isfinite(rate) and rate >= 0 for rate in (*rates, *updates.values())):
        return None
    machine, onnxruntime, threads = identity["machine"], identity["onnxruntime"], identity["threads"]
    return Calibration(machine, onnxruntime, threads, kernels, rates[0], rates[1], updates)


def _point(point: Any) -> Point:
    size, work, seconds = (float(number) for number in point)
    if not (0 < size < math.inf and 0 < work < math.inf and 0 < seconds < math.inf):
        raise ValueError(f"not a measurement: {point}")
    return size, work, seconds
