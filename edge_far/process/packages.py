"""The packages that do the work: whether they start here, and what to say where they do not."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType

from edge_far.errors import Unavailable
from edge_far.process.limits import little_memory, out_of_memory
from edge_far.process.privacy import cache_directory

__all__ = ["explain_import", "install_line", "refuse_deadly_packages", "training_package_missing"]

# Packages of the device with machine code: one that was built for another processor kills the process that imports it.
NATIVE = ("numpy", "onnxruntime", "tokenizers", "safetensors", "psutil")
NAMES = {"numpy": "NumPy", "onnxruntime": "ONNX Runtime", "psutil": "psutil"}
PROCESSOR = ("model name", "flags", "Features", "CPU part")  # lines of /proc/cpuinfo
TIMEOUT_S = 120.0
PROCESSOR_S = 60  # where memory is short, one of them tries to get some for ever
SHOWN = 300

# Names each package before its import. An exception says more in the process that meets it, so it is no finding here.
_RAISED = 87
_TRIAL = f"""import importlib, json, os, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({PROCESSOR_S}, {PROCESSOR_S}))
sys.path[:] = json.loads(sys.argv[1])
for name in sys.argv[2:]:
    print("imports", name, flush=True)
    try:
        importlib.import_module(name)
    except BaseException:
        os._exit({_RAISED})
print("imports all", flush=True)
os._exit(0)
"""


def refuse_deadly_packages() -> None:
    """Raise Unavailable (69) where importing a package of the device would kill this process.

    A process of its own tries it, once: that all of them start here is kept in our cache, until a package or the
    processor is another. A package that is missing, or raises, is left to its import: see `explain_import`.
    """
    found = {name: origin for name in NATIVE if name not in sys.modules and (origin := _origin(name)) is not None}
    if not found:
        return
    ours = cache_directory()
    known = None if ours is None else ours / f"starts-{_identity(found)}"
    if known is not None and _is_there(known):
        return
    command = [sys.executable, "-P", "-c", _TRIAL, json.dumps(sys.path), *found]
    try:
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S, check=False)
        output, ended = done.stdout, _deadly(done.returncode)
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"its import does not end within {TIMEOUT_S:.0f} s"
    except OSError:
        return
    lines = output.decode(errors="replace").splitlines()
    reached = [line.split()[1] for line in lines if line.startswith("imports ")]
    if reached[-1:] == ["all"]:
        _remember(known)
    elif reached and ended is not None:
        raise _does_not_start(reached[-1], found[reached[-1]], ended, True)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the home of someone else, as under sudo -u
        return False


def _remember(known: Path | None) -> None:
    if known is not None:
        with suppress(OSError):
            known.parent.mkdir(parents=True, exist_ok=True)
            known.touch()


def install_line(extra: str) -> str:
    """Return the line that installs edge-far with an extra (host, device, device,mqtt): no index has edge-far."""
    return f"pip install './edge-far[{extra}]'  # beside the checkout"


def explain_import(error: BaseException, extra: str) -> Unavailable | None:
    """Return what to say of an error that came of importing a package; None where it came of something else.

    `extra` is the one of edge-far's extras that the command needs: host or device.
    """
    name = error.name if isinstance(error, ImportError) else None
    if isinstance(error, ModuleNotFoundError) and name is not None:
        if name.startswith("edge_far."):
            return Unavailable(f"edge-far is not installed completely: {error}", hint="install it again")
        if "." not in name:
            return _missing(name, extra)
    name = _being_imported(error.__traceback__) or name
    path = error.path if isinstance(error, ImportError) else None
    if name is None and isinstance(error, SyntaxError) and error.filename:
        name, path = Path(error.filename).stem, error.filename
    elif name is None and isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        name = error.obj.__name__  # a file of another's that has the package's name, or a package that is too old
    package = (name or "edge_far").partition(".")[0]
    if package == "edge_far" or (package in sys.stdlib_module_names and not isinstance(error, ImportError)):
        return None
    return _does_not_start(package, path or _origin(package), _first_words(error), out_of_memory(error))


def _missing(name: str, extra: str) -> Unavailable:
    if name in sys.stdlib_module_names:
        return Unavailable(
            f"this Python was built without {name.lstrip('_')}",
            where=sys.executable,
            hint="take your distribution's Python, or build it again where that library's headers are installed",
        )
    return Unavailable(f"the package {name} is not installed here", hint=install_line(extra))


def _does_not_start(package: str, path: str | None, reason: str, starved: bool) -> Unavailable:
    """Return the error; `starved` says that a lack of memory may be its cause."""
    stray = path is not None and not any(part in path for part in ("site-packages", "dist-packages", sys.prefix))
    hint = "if this file is not that package, rename it" if stray else "install it again, in a build for this processor"
    message = f"{NAMES.get(package, package)} does not start here: {reason}"
    return Unavailable(message, where=path, hint=(starved and little_memory()) or hint)


def _being_imported(trace: TracebackType | None) -> str | None:
    """Return the innermost module, not of ours, whose own code ran when the error came."""
    found = None
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__"))
        if trace.tb_frame.f_code.co_name == "<module>" and name != "__main__" and not name.startswith("edge_far"):
            found = name
        trace = trace.tb_next
    return found


def _first_words(error: BaseException) -> str:
    while error.__cause__ is not None:  # the first of a chain says it; the last gives advice over many lines
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:SHOWN]


def _deadly(status: int) -> str | None:
    """Return how an import ended a process; None where it only raised."""
    if status == _RAISED:
        return None
    if status >= 0:
        return f"its import ends the process with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"its import is killed by {name}{': was it built for another processor?' if name == 'SIGILL' else ''}"


def _origin(package: str) -> str | None:
    """Return the file that an import of a package would read; None where there is none."""
    loaded = getattr(sys.modules.get(package), "__file__", None)
    if loaded is not None:
        return str(loaded)
    with suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        return None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    return None


def _identity(found: dict[str, str]) -> str:
    """Return a name for what was tried: the interpreter, the memory it may have, the processor, the files."""
    told: list[object] = [sys.version, sys.executable]
    told.append(little_memory())
    told += [os.environ.get(name) for name in ("LD_LIBRARY_PATH", "LD_PRELOAD")]
    with suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
        told += [
            line for line in first.splitlines() if line.startswith(("model name", "flags", "Features", "CPU part"))
        ]
    for name, origin in found.items():
        with suppress(OSError):
            seen = Path(origin).stat()
            told += [name, origin, seen.st_mtime_ns, seen.st_size]
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


def training_package_missing() -> str | None:
    """Return None where onnxruntime-training and torch are installed, else the reason; imports neither."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not any((Path(folder) / "training" / "api").is_dir() for folder in folders):
        return "onnxruntime-training is not installed: it has no wheel but for Linux x86_64 and Python <= 3.11"
    if importlib.util.find_spec("torch") is None:
        return "onnxruntime-training needs torch, which is not installed"
    return None
