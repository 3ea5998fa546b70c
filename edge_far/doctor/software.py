"""The programs: 64 bits, Python and its parts, ONNX Runtime and its known traps, packages, telemetry.

Versions are read from the packages' metadata. Nothing is imported here: what is broken may end the process that does.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edge_far.device.board.kernel_files import names_in, read_bytes, read_text
from edge_far.doctor.finding import UNKNOWN, Finding, Subject
from edge_far.errors import Unavailable
from edge_far.process.packages import install_line, refuse_deadly_packages
from edge_far.process.privacy import NO_REPORTS

__all__ = ["examine_software"]

OLDEST_PYTHON = (3, 11)
OLDEST_RUNTIME = (1, 23)  # as pyproject.toml asks
NEEDED = ("numpy", "pyyaml", "tokenizers", "safetensors", "psutil")
# Modules of Python's own that a build may lack, by the library that they need.
BUILT_WITH = {"_ctypes": "libffi", "_sqlite3": "SQLite"}
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-training")
INSTALL = install_line("device")
UPGRADE = "pip install --upgrade 'onnxruntime>=1.30'"
# The service's environment, then the system's.
ENVIRONMENTS = ("opt/edge-far/venv/lib", "usr/local/lib", "usr/lib")
MACHINES = {0x28: "32-bit Arm", 0xB7: "aarch64", 0x03: "32-bit x86", 0x3E: "x86_64"}
VARIABLE = "ORT_DISABLE_TELEMETRY"
LEFT_IN, LEFT = ".cache/Microsoft/DeveloperTools", ".onnxruntime"
UNIT = "etc/systemd/system/edge-far.service"


@dataclass(frozen=True)
class Python:
    """A Python and what is installed for it; `modules` are those of BUILT_WITH that it has, None where unknown."""

    program: Path
    version: tuple[int, ...] | None
    modules: frozenset[str] | None
    places: tuple[str, ...]

    def version_of(self, package: str) -> str | None:
        """Return the version of a package as its metadata tells it, None where it is not installed."""
        for found in metadata.distributions(name=package, path=list(self.places)):
            with suppress(OSError, ValueError, KeyError):  # an installation that was cut short
                if version := found.metadata["Version"]:
                    return str(version)
        return None


def examine_software(subject: Subject) -> list[Finding]:
    """Return the findings on programs and packages."""
    python = _this_python() if subject.is_here else _python_below(subject.root)
    return [
        _user_land(python),
        _python(python),
        _runtime(subject, python),
        _packages(subject, python),
        _telemetry(subject),
    ]


def _this_python() -> Python:
    modules = frozenset(name for name in BUILT_WITH if importlib.util.find_spec(name) is not None)
    return Python(Path(sys.executable), sys.version_info[:3], modules, tuple(sys.path))


def _python_below(root: Path) -> Python:
    """Return the Python of a tree of files: the service's environment where there is one, else the system's."""
    versions: list[tuple[int, ...]] = []
    places: list[str] = []
    modules: frozenset[str] | None = None
    for base in ENVIRONMENTS:
        for name in names_in(root / base):
            number = re.fullmatch(r"python3(?:\.([0-9]{1,3}))?", name)
            if number is None:
                continue
            directory = root / base / name
            places += [str(directory / kind) for kind in ("site-packages", "dist-packages")]
            if number[1]:
                versions.append((3, int(number[1])))
            loaded = [each.partition(".")[0] for each in names_in(directory / "lib-dynload")]
            if loaded:
                modules = (modules or frozenset()) | (frozenset(loaded) & frozenset(BUILT_WITH))
    return Python(root / "usr/bin/python3", versions[0] if versions else None, modules, tuple(places))


def _user_land(python: Python) -> Finding:
    """Whether programs are 64-bit: a Raspberry Pi OS of 32 bits runs a 64-bit kernel, which says nothing of them."""
    head = (read_bytes(python.program) or b"")[:20]
    if head[:4] != b"\x7fELF" or len(head) < 19:
        return Finding("user land", "note", UNKNOWN, f"{python.program} is no program that can be read")
    bits = {1: 32, 2: 64}.get(head[4])
    machine = MACHINES.get(head[18], "another processor")
    if bits == 64:
        return Finding("user land", "ok", f"64-bit ({machine})")
    why = "ONNX Runtime has no wheel for 32 bits, also where the kernel has 64"
    todo = "write the 64-bit image of your system to the card and start anew: a system cannot be changed over"
    return Finding("user land", "bad", f"32-bit ({machine})", why, todo)


def _python(python: Python) -> Finding:
    name = "python"
    if python.version is None:
        return Finding(name, "note", UNKNOWN, f"no Python 3 below {python.program.parents[2]}")
    shown = ".".join(map(str, python.version))
    if python.version < OLDEST_PYTHON:
        why = f"edge-far needs {'.'.join(map(str, OLDEST_PYTHON))}"
        return Finding(name, "bad", shown, why, "install a newer Python, or use the container (deploy/Containerfile)")
    if python.modules is None:
        return Finding(name, "ok", shown)
    missing = [module for module in BUILT_WITH if module not in python.modules]
    if missing:
        without = " and ".join(module.lstrip("_") for module in missing)
        libraries = " and ".join(BUILT_WITH[module] for module in missing)
        why = f"it was built without {without}: the headers of {libraries} were not there"
        todo = "sudo apt install python3 python3-venv   # or libffi-dev libsqlite3-dev, and build it again"
        return Finding(name, "bad", f"{shown}, without {without}", why, todo)
    return Finding(name, "ok", f"{shown}, with ctypes and sqlite3")


def _runtime(subject: Subject, python: Python) -> Finding:
    """ONNX Runtime: is it there, is it new enough, and is it one that is known to crash."""
    name = "onnxruntime"
    found = {each: version for each in RUNTIMES if (version := python.version_of(each)) is not None}
    version = found.get("onnxruntime") or found.get("onnxruntime-gpu")
    read = ", ".join(f"{each} {found[each]}" for each in found)
    if "onnxruntime-training" in found:
        if version is None:
            why = "a workstation's environment: it exports and plans, and a device trains with the stock onnxruntime"
            return Finding(name, "note", read, why)
        why = "both own the same module, and which of them is imported is chance"
        todo = f"pip uninstall -y onnxruntime-training {name} && {INSTALL}"
        return Finding(name, "bad", read, why, todo)
    if version is None:
        return Finding(name, "bad", "not installed", "training, predicting and planning need it", INSTALL)
    numbers = _numbers(version)
    if numbers[:2] == (1, 21) and subject.board.is_arm and "asimddp" not in subject.board.features:
        why = "its wheel uses instructions that this core lacks: the import ends with 'Illegal instruction'"
        return Finding(name, "bad", read, why, UPGRADE)
    if numbers < OLDEST_RUNTIME:
        why = f"edge-far needs {'.'.join(map(str, OLDEST_RUNTIME))} or newer"
        why += "; this one refuses our graphs (IR version 10)" if numbers < (1, 18) else ""
        return Finding(name, "bad", read, why, UPGRADE)
    if numbers[:3] == (1, 29, 0):
        return _with_reports(subject, read)
    return Finding(name, "ok", read)


def _with_reports(subject: Subject, read: str) -> Finding:
    """1.29.0 asks a shell who this machine is, for its reports, and crashes where there is none."""
    why = f"its import crashes where /bin is empty, unless {VARIABLE}=1 forbids its reports; edge-far sets that"
    if any("sh" in names_in(subject.root / folder) for folder in ("bin", "usr/bin")):
        return Finding("onnxruntime", "note", read, why, UPGRADE)
    return Finding("onnxruntime", "warn", read, f"{why}, your application must: there is no shell here", UPGRADE)


def _packages(subject: Subject, python: Python) -> Finding:
    name = "packages"
    found = {package: python.version_of(package) for package in NEEDED}
    if not any(found.values()):
        return Finding(name, "bad", "none of edge-far's are installed", "", INSTALL)
    missing = [package for package, version in found.items() if version is None]
    read = ", ".join(f"{package} {version}" for package, version in found.items() if version is not None)
    if missing:
        return Finding(name, "bad", read, f"missing: {', '.join(missing)}", INSTALL)
    if subject.is_here:
        try:
            refuse_deadly_packages()
        except Unavailable as error:
            return Finding(name, "bad", read, str(error.message), error.hint or INSTALL)
    return Finding(name, "ok", read)


def _telemetry(subject: Subject) -> Finding:
    """Who reports: edge-far forbids it in each of its processes, so what is left is the unit and the system."""
    name = "telemetry"
    if not subject.is_here and not names_in(subject.root / "etc"):
        return Finding(name, "note", UNKNOWN, "/etc cannot be read")
    off = f"off in every process of edge-far ({len(NO_REPORTS)} variables)"
    for place, text in _settings(subject):
        if said := re.findall(rf"{VARIABLE}=[\"']?([^\s\"']*)", text):
            if said[-1] != "1":
                why = f"/{place} sets {VARIABLE}={said[-1]}: your application's ONNX Runtime reports to its maker"
                return Finding(name, "warn", f"{off}; elsewhere on", why, f"put {VARIABLE}=1 into /{place}")
        elif place == UNIT:
            why = f"/{place} does not set {VARIABLE}=1: a health command of yours would report"
            todo = f"systemctl edit edge-far   # [Service] Environment={VARIABLE}=1"
            return Finding(name, "warn", f"{off}; elsewhere on", why, todo)
    left = _left_behind(subject)
    if left is None:
        return Finding(name, "ok", off)
    why = f"a program that is not edge-far's has let ONNX Runtime report: it left {left}"
    return Finding(name, "note", off, why, f"set {VARIABLE}=1 for that program, and delete the file")


def _left_behind(subject: Subject) -> str | None:
    """Return the file with a device's number that a reporting ONNX Runtime leaves in a home; None without."""
    homes = ["root", *(f"home/{name}" for name in names_in(subject.root / "home"))]
    found = next((home for home in homes if LEFT in names_in(subject.root / home / LEFT_IN)), None)
    return None if found is None else f"/{found}/{LEFT_IN}/{LEFT}"


def _settings(subject: Subject) -> list[tuple[str, str]]:
    """Return the files that set variables for the service or for everybody, with their texts."""
    drop_ins = [f"{UNIT}.d/{each}" for each in names_in(subject.root / f"{UNIT}.d") if each.endswith(".conf")]
    # A drop-in need not say it, and what it says counts more than the unit.
    found = []
    for place in (UNIT, *drop_ins, "etc/edge-far/edge-far.env", "etc/environment"):
        text = read_text(subject.root / place)
        if text is not None and (place == UNIT or VARIABLE in text):
            lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]
            found.append((place, "\n".join(lines)))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,6}", version.partition("+")[0])[:3])
