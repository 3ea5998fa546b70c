"""What a command may find around it: each surrounding changes the place it runs in, or the process it becomes.

A Place is a folder of its own with a bundle, data, a finished run, a released model, a state directory, a home, and
directories for temporary files, to work in, and for outputs (`mine`).
"""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tiny_cases import REPOSITORY

NOBODY = 65534
CLOSED = -1  # a stream that is not there
# Names of modules of ours, of what we use and of Python itself.
STRAY = ("edge_far", "json", "numpy", "tokenizers", "onnxruntime", "random", "safetensors", "yaml", "typing", "errors")
# An unprivileged user may not pass through the folder that holds Python: another process sees it elsewhere.
SEE_PYTHON = 'mount --bind "$1" "$3" && mount -t tmpfs -o mode=755 none "$2" && mkdir -p "$1" && mount --bind "$3" "$1"'
BECOME_NOBODY = f"exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --"
CLOCK = """import time
_moved = {now} - time.time()
_time, _time_ns, _local, _utc = time.time, time.time_ns, time.localtime, time.gmtime
time.time = lambda: _time() + _moved
time.time_ns = lambda: _time_ns() + int(_moved) * 10**9
time.localtime = lambda seconds=None: _local(time.time() if seconds is None else seconds)
time.gmtime = lambda seconds=None: _utc(time.time() if seconds is None else seconds)
"""


@dataclass
class Place:
    """Where one command runs, and what the process is before it becomes the command."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    before: list[Callable[[], None]] = field(default_factory=list)  # run in the child
    after: list[Callable[[], None]] = field(default_factory=list)  # undone when the test ends
    wrapper: list[str] = field(default_factory=list)
    streams: dict[int, Any] = field(default_factory=dict)
    text: bytes = b"w1 w2"  # what predict and add are told

    def __getattr__(self, name: str) -> Path:
        """Return a path below the root: bundle, data, run, model, state, home, temporary, work, mine."""
        if name.startswith("_"):
            raise AttributeError(name)
        return self.root / {"data": "data.jsonl"}.get(name, name)


@dataclass(frozen=True)
class Surrounding:
    """What is hostile: `folder` is the name of the place."""

    change: Callable[[Place], None] = lambda place: None
    folder: bytes = b"place"


def furnish(place: Place, made: Path, change: Callable[[Place], None]) -> None:
    """Copy what was made once for all tests into a place, then make it hostile."""
    shutil.copytree(made, place.root, symlinks=True)
    for name in ("home", "temporary", "work", "mine"):
        (place.root / name).mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH")}
    place.environment |= kept | {"HOME": str(place.home), "TMPDIR": str(place.temporary), "OMP_NUM_THREADS": "1"}
    place.environment |= {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    change(place)


def start(place: Place, words: list[bytes]) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a place to its end."""

    def become() -> None:
        for number, stream in place.streams.items():
            if stream == CLOSED:
                os.close(number)
        for change in place.before:
            change()

    names = {0: "stdin", 1: "stdout", 2: "stderr"}
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams |= {names[number]: stream for number, stream in place.streams.items() if stream != CLOSED}
    command = [*place.wrapper, sys.executable, "-P", "-m", "edge_far.cli", *words]
    return subprocess.run(
        command,
        check=False,
        timeout=120,
        cwd=place.work,
        env=place.environment,
        preexec_fn=become,
        restore_signals=False,
        **streams,
    )


def has(**variables: str | None) -> Surrounding:
    """Have variables of the environment set, or with None not set."""

    def change(place: Place) -> None:
        for name, value in variables.items():
            place.environment.pop(name, None)
            if value is not None:
                place.environment[name] = value

    return Surrounding(change)


def becomes(before: Callable[[], None]) -> Surrounding:
    """Call a function in the process before it becomes the command."""
    return Surrounding(lambda place: place.before.append(before))


def both(first: Surrounding, second: Surrounding) -> Surrounding:
    """Be in two surroundings at once, in the folder of the second."""

    def change(place: Place) -> None:
        first.change(place)
        second.change(place)

    return Surrounding(change, second.folder)


def limited(number: int, limit: int) -> Surrounding:
    """Limit a resource, as ulimit does."""
    return becomes(lambda: resource.setrlimit(number, (limit, limit)))


def masked(mask: int) -> Surrounding:
    """Have a umask."""
    return becomes(lambda: os.umask(mask) and None)


def streamed(number: int, path: str | None, mode: str = "r") -> Surrounding:
    """Have a file as a stream; None closes it."""

    def change(place: Place) -> None:
        if path is None:
            place.streams[number] = CLOSED
            return
        file = Path(path.format(root=place.root)).open(mode)  # noqa: SIM115
        place.after.append(file.close)
        place.streams[number] = file

    return Surrounding(change)


def unread() -> Surrounding:
    """Have a pipe as stdout whose reader has gone."""

    def change(place: Place) -> None:
        reader, place.streams[1] = os.pipe()
        os.close(reader)
        place.after.append(lambda: os.close(place.streams[1]))

    return Surrounding(change)


def ignoring(*numbers: signal.Signals, handler: signal.Handlers = signal.SIG_IGN) -> Surrounding:
    """Have been started by a program that ignores signals, or does not."""

    def ignore() -> None:
        for number in numbers:
            signal.signal(number, handler)

    return becomes(ignore)


def spoken(text: bytes, **variables: str) -> Surrounding:
    """Tell predict and add a text in bytes, under variables of the environment."""

    def change(place: Place) -> None:
        place.text = text
        place.environment |= variables

    return Surrounding(change)


def dated(seconds: float) -> Surrounding:
    """Have a clock that shows `seconds` since 1970; files keep their dates."""

    def change(place: Place) -> None:
        folder = place.root / "clock"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(CLOCK.format(now=seconds))
        place.environment["PYTHONPATH"] = f"{folder}{os.pathsep}{REPOSITORY}"

    return Surrounding(change)


def littered() -> Surrounding:
    """Work in a directory full of modules named like those that are needed; each ends whoever imports it."""

    def change(place: Place) -> None:
        for name in STRAY:
            (place.work / f"{name}.py").write_text("raise SystemExit('a stray module')\n")

    return Surrounding(change)


def mounted(name: str, options: str, fill: bool = False) -> Surrounding:
    """Have a small file system as a folder of the place; full with `fill`. Skips the test where none may be mounted."""

    def change(place: Place) -> None:
        folder = getattr(place, name)
        folder.mkdir(exist_ok=True)
        _mount(place, folder, f"size=64k,{options}")
        if fill:
            (folder / "ballast").write_bytes(b"\0" * _free(folder))

    return Surrounding(change)


def someone_else() -> Surrounding:
    """Be nobody, who owns the temporary and the working directory and `mine`; the home is another's and closed."""

    def change(place: Place) -> None:
        place.root.chmod(0o755)
        place.home.chmod(0o700)
        for name in ("temporary", "work", "mine"):
            os.chown(place.root / name, NOBODY, NOBODY)
        place.wrapper = ["sh", "-ec", BECOME_NOBODY + ' "$@"', "sh"]
        closed = _closed_above(Path(sys.base_prefix))
        if closed is not None:
            (place.root / "python").mkdir()
            script = f'{SEE_PYTHON}; shift 3; {BECOME_NOBODY} "$@"'
            folders = [sys.base_prefix, str(closed), str(place.root / "python")]
            place.wrapper = ["unshare", "--mount", "sh", "-ec", script, "sh", *folders]

    return Surrounding(change)


def orphaned() -> None:
    """Have children die with their parent, so that a test that is killed leaves none behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def changes(root: Path, allowed: tuple[str, ...]) -> Mapping[str, tuple[int, int]]:
    """Return size and time of change of every file below a place, but for those below the allowed folders."""
    found = {}
    for folder, names, files in os.walk(root):
        relative = os.path.relpath(folder, root)
        if f"{relative}/".startswith(allowed):
            names.clear()
            continue
        for name in files:
            seen = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            found[f"{relative}/{name}"] = (seen.st_size, seen.st_mtime_ns)
    return found


def _mount(place: Place, folder: Path, options: str) -> None:
    import pytest

    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode()}")
    place.after.append(lambda: subprocess.run(["umount", folder], check=True) and None)


def _free(folder: Path) -> int:
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def _closed_above(path: Path) -> Path | None:
    """Return the outermost folder of a path through which others may not pass."""
    return next((folder for folder in reversed([path, *path.parents]) if not folder.stat().st_mode & 0o001), None)
