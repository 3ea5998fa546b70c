"""Which engines this machine can measure, and with which interpreter: two environments never share an onnxruntime."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_far import __version__
from edge_far.device.board.cpu import cpu_name
from edge_far.errors import InputMissing, UsageError
from edge_far.process.children import child_environment
from edge_far.process.packages import training_package_missing

__all__ = [
    "Environment",
    "can_count",
    "describe_machine",
    "find_environments",
    "missing_for_compiling",
    "python_or_exit",
]

OLDEST_RUNTIME = (1, 23)
_PROBE = "import edge_far.bench, onnxruntime; print(onnxruntime.__version__)"
_PROBE_SECONDS = 60
# Relative to the environment of the workstation, where the Makefile puts that of the device.
_NEIGHBOUR = Path("..", ".venv-device", "bin", "python")


@dataclass(frozen=True)
class Environment:
    """The interpreter that measures an engine, or the reason why there is none."""

    python: Path | None
    reason: str = ""


def find_environments(device_python: Path | None) -> dict[str, Environment]:
    """Return the environment of every engine; raises InputMissing or UsageError for a bad `device_python`."""
    own = Path(sys.executable)
    missing = training_package_missing()
    return {
        "torch": Environment(None, no_torch) if (no_torch := _missing("torch", "transformers")) else Environment(own),
        "ort-training": Environment(None, missing) if missing else Environment(own),
        "edge-far": _device(device_python),
    }


def python_or_exit(engine: str, device_python: Path | None = None) -> Path:
    """Return the interpreter of an engine, for scripts: ends them with the reason (exit 1) where there is none."""
    environment = find_environments(device_python)[engine]
    if environment.python is None:
        sys.exit(environment.reason)
    return environment.python


def missing_for_compiling() -> str | None:
    """Return why this environment cannot compile bundles, or None where it can; imports nothing heavy."""
    return _missing("torch", "transformers", "onnx_ir", "onnxscript", "tokenizers", "safetensors")


def can_count() -> bool:
    """Say whether this environment has the graph library that bytes are counted with."""
    return _missing("onnx_ir") is None


def describe_machine() -> dict[str, Any]:
    """Return what figures depend on; the load average is that of the last minute, so call this before the work."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu_name(),
        "memory_mib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "edge_far": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _missing(*packages: str) -> str | None:
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{absent[0]} is not installed" if absent else None


def _device(asked: Path | None) -> Environment:
    if asked is not None:
        if not asked.exists():
            raise InputMissing("no such interpreter", where=str(asked), hint="name bin/python of an environment")
        reason = _unfit(asked)
        if reason is not None:
            raise UsageError(f"this interpreter cannot measure edge-far: {reason}", where=str(asked))
        return Environment(asked)
    neighbour = Path(os.path.normpath(Path(sys.prefix) / _NEIGHBOUR))
    reasons = []
    for python in (neighbour, Path(sys.executable)):
        reason = _unfit(python) if python.exists() else "does not exist"
        if reason is None:
            return Environment(python)
        reasons.append(f"{python.parent.parent.name}: {reason}")
    return Environment(None, f"no environment with the stock onnxruntime ({'; '.join(reasons)}); name --device-python")


def _unfit(python: Path) -> str | None:
    """Say why an interpreter cannot run the portable step, or None."""
    try:
        done = subprocess.run(
            [python, "-P", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
            env=child_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start: {error}"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
    version = done.stdout.split()[-1]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_RUNTIME:
        return f"its onnxruntime is {version}, older than {'.'.join(map(str, OLDEST_RUNTIME))}"
    return None
