"""Nothing leaves the device, and nothing is written outside outputs and our own cache: real runs under a tracer."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.process.privacy import NO_REPORTS, cache_directory, keep_caches_together
from tests.daemon.field import Field
from tests.tiny_cases import REPOSITORY

OPENS = ("open", "openat", "openat2")
CHANGES = ("creat", "mkdir", "mkdirat", "mknod", "rename", "renameat", "renameat2")
CHANGES += ("link", "linkat", "symlink", "symlinkat")
TRACED = f"trace=network,{','.join(OPENS + CHANGES)}"
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
CALL = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)<(?P<folder>[^>]*)>, )?"(?P<name>[^"]*)"')
# What is there for every process, and keeps nothing.
DEVICES = ("/dev/null/", "/dev/tty/", "/dev/shm/sem.", "/proc/self/")


def why_no_tracer() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed (Debian: apt install strace)"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, check=False)
    return "strace may not trace here (container without ptrace?)" if done.returncode else None


NO_TRACER = why_no_tracer()
needs_tracer = pytest.mark.skipif(NO_TRACER is not None, reason=NO_TRACER or "")


@dataclass
class Seen:
    """What the processes of a command did: sockets but local ones, and every path that was made or written."""

    sockets: list[str] = field(default_factory=list)
    written: set[str] = field(default_factory=set)

    def outside(self, *allowed: Path) -> list[str]:
        """Return what was written elsewhere."""
        inside = (*DEVICES, *(f"{place}/" for place in allowed))
        return sorted(path for path in self.written if not f"{path}/".startswith(inside))


def seen_in(trace: Path) -> Seen:
    """Read what strace wrote: TRACE.PID, one file a process, so that no call is torn in two lines."""
    seen = Seen()
    traces = [path.read_text("utf-8", "replace") for path in trace.parent.glob(f"{trace.name}.*")]
    lines = "\n".join(traces).splitlines()
    assert lines
    for line in lines:
        found = CALL.match(line)
        if "socket(" in line and "socket(AF_UNIX" not in line:
            seen.sockets.append(line)
        if found is None or int(found["result"]) < 0:
            continue
        if found["name"] in CHANGES or (found["name"] in OPENS and WRITES.search(found["arguments"])):
            places = [str(Path(place["folder"] or "/", place["name"])) for place in PLACE.finditer(found["arguments"])]
            seen.written.update(places[-1:] if found["name"].startswith("symlink") else places)
    return seen


def under_tracer(trace: Path, *command: str) -> list[str]:
    return ["strace", "-ff", "-y", "--seccomp-bpf", "-s", "4096", "-e", TRACED, "-o", str(trace), *command]


class Tracer:
    """Runs commands in a home of their own; `seen` is what the last one did."""

    def __init__(self, folder: Path) -> None:
        self.home, self.temporary = folder / "home", folder / "tmp"
        self.cache = self.home / ".cache" / "edge-far"
        self.cache.parent.mkdir(parents=True)
        self.temporary.mkdir()
        self._trace = folder / "trace"
        self.seen = Seen()

    def run(self, command: list[str], *, status: int = 0) -> str:
        # The user's own wish to send reports is overridden, and neither CI nor pytest is noticed by a package.
        environment = os.environ | {"HOME": str(self.home), "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"}
        environment |= {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "0"}
        for name in ("PYTEST_CURRENT_TEST", "CI", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR"):
            environment.pop(name, None)
        for trace in self._trace.parent.glob("trace.*"):
            trace.unlink()
        line = under_tracer(self._trace, *command)
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=300)
        assert done.returncode == status, done.stdout + done.stderr
        self.seen = seen_in(self._trace)
        assert self.seen.sockets == []
        assert list(self.temporary.iterdir()) == [] and list(self.home.iterdir()) == [self.cache.parent]
        return done.stdout


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Tracer]:
    folder = tmp_path / "traced"
    folder.mkdir()
    yield Tracer(folder)


def cli(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "edge_far.cli", *map(str, arguments)]


@needs_tracer
@pytest.mark.device
def test_a_cycle_of_the_daemon_and_a_prediction_stay_at_home(
    tracer: Tracer, tiny_bundle: Callable[[str], Bundle], tmp_path: Path
) -> None:
    """A cycle starts train, merge and the gate, each a process of its own."""
    device = tmp_path / "device"
    device.mkdir()
    there = Field(device, tiny_bundle("tiny-fp32").root)
    there.feed(350)
    cycle = json.loads(tracer.run(there.command("daemon", "--once")))["cycle"]
    assert cycle["outcome"] in ("released", "rejected")  # it has trained, merged and compared
    assert str(there.state / "store.sqlite3") in tracer.seen.written
    assert tracer.seen.outside(there.state, tracer.cache, tracer.temporary) == []
    tracer.run(cli("predict", tiny_bundle("tiny-fp32").root, "w1 w2"))
    assert tracer.seen.outside(tracer.cache, tracer.temporary) == []


@needs_tracer
@pytest.mark.device
def test_training_for_the_first_time_writes_the_run_and_our_cache(
    tracer: Tracer, tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"  # where an output is to be made, it is tried first whether one can
    out.mkdir()
    arguments = ("--train", tiny_data, "--out", out / "run", "--max-steps", "2")
    tracer.run(cli("train", tiny_bundle("tiny-fp32").root, *arguments))
    assert tracer.seen.outside(out, tracer.cache, tracer.temporary) == []
    assert list(tracer.cache.glob("calibration-*.json"))


@needs_tracer
@pytest.mark.host
def test_an_export_stays_at_home(tracer: Tracer, tmp_path: Path) -> None:
    from tests.tiny_models import make_examples, make_tiny, make_tokenizer

    model, data, out = tmp_path / "model", tmp_path / "train.jsonl", tmp_path / "out"
    make_tiny("bert").save_pretrained(model)
    make_tokenizer("bert").save(str(model / "tokenizer.json"))
    data.write_text("".join(json.dumps(example) + "\n" for example in make_examples(20)))
    out.mkdir()
    unprimed = ("--method", "far", "--selection", "first", "--start", "reset", "--no-ort")
    tracer.run(cli("export", "--model", model, "--train", data, "--out", out / "bundle", *unprimed))
    assert tracer.seen.written and tracer.seen.outside(out, tracer.cache, tracer.temporary) == []


@needs_tracer
def test_the_tracer_would_see_it(tmp_path: Path) -> None:
    """The tests above can fail: a socket, a file and a directory elsewhere are found."""
    trace = tmp_path / "trace"
    script = f"import socket, pathlib; socket.socket(); pathlib.Path({str(tmp_path / 'file')!r}).touch()"
    script += f"; pathlib.Path({str(tmp_path / 'folder')!r}).mkdir()"
    subprocess.run(under_tracer(trace, sys.executable, "-B", "-c", script), check=True)
    seen = seen_in(trace)
    assert len(seen.sockets) == 1 and "AF_INET" in seen.sockets[0]
    assert seen.outside(Path("/etc")) == [str(tmp_path / "file"), str(tmp_path / "folder")]
    assert seen.outside(tmp_path) == []


def ask(script: str, **environment: str) -> str:
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=variables
    ).stdout


def test_reports_are_forbidden_before_the_first_import_whatever_was_set() -> None:
    script = f"import edge_far, os; print(all(os.environ[k] == v for k, v in {dict(NO_REPORTS)!r}.items()))"
    assert ask(script, ORT_DISABLE_TELEMETRY="0", FLWR_TELEMETRY_ENABLED="1") == "True\n"


def test_every_file_that_imports_the_runtime_has_edge_far_or_the_variable_first() -> None:
    """A script of ours that imports ONNX Runtime before edge_far would let it report."""
    early = []
    for path in sorted(
        path for folder in ("benchmarks", "scripts", "tests/aarch64") for path in (REPOSITORY / folder).rglob("*.py")
    ):
        text = path.read_text()
        runtime = re.search(r"^(import|from) onnxruntime", text, re.MULTILINE)
        ours = re.search(r"^from edge_far|ORT_DISABLE_TELEMETRY", text, re.MULTILINE)
        if runtime and not (ours and ours.start() < runtime.start()) and "python_or_exit(" not in text:
            early.append(str(path))
    assert early == []


def test_units_and_container_say_it_too() -> None:
    for name in ("edge-far.service", "Containerfile"):
        assert "ORT_DISABLE_TELEMETRY=1" in (REPOSITORY / "deploy" / name).read_text()


def test_caches_of_others_lie_in_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "CACHE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("MPLCONFIGDIR", "/the/user's")
    keep_caches_together()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "edge-far" / "torch")
    assert os.environ["MPLCONFIGDIR"] == "/the/user's"


def test_where_our_cache_cannot_be_made_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR", "CACHE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "edge-far").write_text("a file where the directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_caches_together()
    assert "MPLCONFIGDIR" not in os.environ and "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_the_cache_is_the_services_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/edge-far:/var/cache/other")
    assert cache_directory() == Path("/var/cache/edge-far")
    monkeypatch.delenv("CACHE_DIRECTORY")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the specification: ignored
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_directory() == Path("/home/someone/.cache/edge-far")
    monkeypatch.delenv("HOME")
    assert cache_directory() is None
