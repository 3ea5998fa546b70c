"""How quick this machine is: the seconds of every kernel that a bundle uses, measured once and cached.

The measurement is that of probe.py, in a process of its own, so that nothing of it stays in this one's memory. A file
of the cache belongs to one machine (its cores and CPU quota included), ONNX Runtime, number of threads and set of
operators; a damaged one is measured again. What was measured can be written to a file and read on another machine.
Refuses to know what a step consists of: that is step_times.py's.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Manifest
from edge_far.console import Console, say
from edge_far.device.board.cpu import cpu_name, cpu_share
from edge_far.device.optimizers.registry import OPTIMIZERS
from edge_far.errors import DataError, EdgeFarError
from edge_far.json_file import Damaged, Name, Size, Within, decode, parse_json, read_document
from edge_far.process.children import child_environment, module_command
from edge_far.process.privacy import cache_directory
from edge_far.quoting import one_line
from edge_far.storage import unreadable, write_json

__all__ = [
    "Calibration",
    "answer_measured",
    "calibrate",
    "machine_name",
    "measure_apart",
    "read_calibration",
    "write_calibration",
]

FORMAT = 3
# The probe stops after 10 s; a slow board also needs time to start Python and to verify the bundle.
TIMEOUT_S = 120.0

Seconds = Annotated[float, Within(0, 1e6)]
Positive = Annotated[float, Within(1e-12, 1e18)]
Point = tuple[Positive, Positive, Positive]


@dataclass(frozen=True)
class _Measured:
    """What probe.measure returns."""

    kernels: Mapping[str, Annotated[tuple[Point, ...], Within(1, 1000)]]
    kernels_beside: Mapping[str, Annotated[tuple[Point, ...], Within(1, 1000)]]
    node_seconds: Seconds
    mask_byte_seconds: Seconds
    parameter_seconds: Mapping[str, Seconds]


@dataclass(frozen=True)
class _File:
    """A calibration as JSON; `operators` is the fingerprint of a bundle's."""

    format: int
    machine: Name
    onnxruntime: Name
    threads: Size
    operators: str
    measured: _Measured


@dataclass(frozen=True)
class Calibration:
    """What was measured, and on what; `kernels` holds (size, work, seconds) by kernel, ascending in size.

    `kernels_beside` holds the same where each thread runs a kernel of its own, all side by side; empty where there is
    one thread, and where the bundle has no prefix, which alone computes so.

    Sizes and works are those of the bundle's ProbedOperator. `node_seconds` is what any operator costs besides,
    `mask_byte_seconds` drawing a byte of dropout bits, `parameter_seconds` norm, update and clearing of one trained
    number, by optimiser.
    """

    machine: str
    onnxruntime: str
    threads: int
    kernels: Mapping[str, tuple[Point, ...]]
    kernels_beside: Mapping[str, tuple[Point, ...]]
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

    identity = _identity(bundle.manifest, machine_name(), onnxruntime.__version__, threads)
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
    if path is not None:
        _store(path, document, console)
    return _decoded(document, bundle.manifest)


def write_calibration(path: Path, calibration: Calibration, manifest: Manifest) -> None:
    """Write what was measured for a bundle to a file that read_calibration takes; raises StorageError."""
    identity = _identity(manifest, calibration.machine, calibration.onnxruntime, calibration.threads)
    measured = {each.name: getattr(calibration, each.name) for each in fields(_Measured)}
    write_json(path, {**identity, "measured": measured})


def read_calibration(path: Path, manifest: Manifest) -> Calibration:
    """Return what was measured for this bundle, on whatever machine.

    Raises InputMissing (66), StorageError (74), and DataError (65) for a damaged file and for one of other operators.
    """
    hint = "on the board: edge-far doctor --bench --bundle BUNDLE --keep-calibration FILE"
    try:
        return _decoded(read_document(path, Any), manifest)
    except Damaged as error:
        raise DataError(f"no calibration of this bundle: {error}", where=str(path), hint=hint) from error
    except OSError as error:
        raise unreadable(error, path, hint) from error


def machine_name() -> str:
    """Return the processor's or the board's name, and the cores and the quota that this process may use."""
    return f"{cpu_name()}, {cpu_share().text}"


def _identity(manifest: Manifest, machine: str, onnxruntime: str, threads: int) -> dict[str, Any]:
    """Return what a measurement belongs to, as the first keys of its file."""
    operators = _fingerprint(manifest)
    return {
        "format": FORMAT,
        "machine": machine,
        "onnxruntime": onnxruntime,
        "threads": threads,
        "operators": operators,
    }


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
    """Return what the cache holds; None where that is nothing, damaged, or not of this identity."""
    if path is None:
        return None
    try:
        document = parse_json(path.read_bytes())
        found = _decoded(document, manifest)
    except (OSError, Damaged):
        return None
    return found if all(document[name] == value for name, value in identity.items()) else None


def _decoded(document: Any, manifest: Manifest) -> Calibration:
    """Return the calibration in a document; raises Damaged where it is none, or not of the bundle's operators."""
    if isinstance(document, dict) and document.get("format", FORMAT) != FORMAT:
        raise Damaged(f"'format' is not {FORMAT}: another version of edge-far wrote it")
    file: _File = decode(_File, document)
    measured = file.measured
    wanted = {operator.kernel for operator in manifest.portable.probe}
    known = set(measured.kernels) == wanted and set(measured.kernels_beside) in (set(), wanted)
    if file.operators != _fingerprint(manifest) or not known:
        raise Damaged("it was measured for another bundle's operators")
    if missing := sorted(set(OPTIMIZERS) - set(measured.parameter_seconds)):
        raise Damaged(f"'measured.parameter_seconds.{missing[0]}' is missing")
    machine, seconds = one_line(file.machine), measured.parameter_seconds
    return Calibration(
        machine,
        one_line(file.onnxruntime),
        file.threads,
        measured.kernels,
        measured.kernels_beside,
        measured.node_seconds,
        measured.mask_byte_seconds,
        seconds,
    )
