"""Closed, full, abandoned and narrow streams: training goes on in silence, and stdout holds the result alone."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.console import Console
from edge_far.process import streams
from tests.faults.processes import ENVIRONMENT, events, start

# Closes descriptors, then becomes the command: what `2>&-` does in a shell.
WITHOUT = (
    "import os, sys; [os.close(int(n)) for n in sys.argv[1]]; os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


@pytest.fixture
def training(tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path) -> list[str]:
    """Return the words of a short training run that says more than one line."""
    words: list[str | Path] = ["-m", "edge_far.cli", "train", tiny_bundle("tiny-fp32").root, "--train", tiny_data]
    return [*map(str, words), "--out", str(tmp_path / "run"), "--epochs", "2", "--max-steps", "4", "--json"]


def run(command: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    settings.setdefault("stdout", subprocess.PIPE)
    settings.setdefault("env", ENVIRONMENT)
    return subprocess.run([sys.executable, *command], text=True, check=False, timeout=120, **settings)


def assert_trained(done: subprocess.CompletedProcess[str], folder: Path, *, code: int = 0) -> None:
    """The run is whole, and what was printed is one document."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    result = json.loads((folder / "result.json").read_text())
    assert result["steps"] == 4 and len(events(folder, "step")) == 4
    if done.stdout is not None:
        assert json.loads(done.stdout)["steps"] == 4


@pytest.mark.device
def test_messages_that_do_not_fit_on_a_full_disk(training: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        assert_trained(run(training, stderr=full), tmp_path / "run")


@pytest.mark.device
def test_a_reader_of_messages_that_goes_away(training: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(training, stderr=writer)
    os.close(writer)
    assert_trained(done, tmp_path / "run")


@pytest.mark.device
def test_closed_messages_land_neither_in_the_result_nor_in_a_file(training: list[str], tmp_path: Path) -> None:
    done = run(["-c", WITHOUT, "2", *training])
    assert_trained(done, tmp_path / "run")
    for path in (tmp_path / "run").rglob("*.json*"):
        for line in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(line)


@pytest.mark.device
def test_all_closed_is_a_wish_to_hear_nothing(training: list[str], tmp_path: Path) -> None:
    done = run(["-c", WITHOUT, "012", *training], stdout=None, stderr=None)
    assert_trained(done, tmp_path / "run")


@pytest.mark.device
def test_a_result_that_cannot_be_told_is_an_error_and_the_work_is_kept(training: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(training, stdout=full, stderr=subprocess.PIPE)
    assert_trained(done, tmp_path / "run", code=74)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("edge-far: error: standard output: cannot write: No space left on device (")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.device
def test_a_terminal_that_is_gone_is_no_reason_to_stop(training: list[str], tmp_path: Path) -> None:
    """Not the terminal that controls this process: that one says so with SIGHUP."""
    ours, theirs = pty.openpty()
    os.close(ours)
    done = run(training, stderr=theirs)
    os.close(theirs)
    assert_trained(done, tmp_path / "run")


@pytest.mark.device
def test_closing_the_terminal_leaves_a_checkpoint(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "edge_far.cli", "train", str(tiny_bundle("tiny-fp32").root), "--epochs", "3000"]
    command += ["--train", str(tiny_data), "--out", str(folder)]
    child, terminal = pty.fork()
    if not child:
        os.execve(sys.executable, command, ENVIRONMENT)
    ends = time.monotonic() + 60
    while not (folder / "log.jsonl").is_file() or len(events(folder, "step")) < 3:
        assert time.monotonic() < ends
        time.sleep(0.02)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
    last = events(folder, "step")[-1]["step"]
    assert (folder / "checkpoints" / f"step-{last:08d}" / "state.json").is_file()


@pytest.mark.device
def test_under_nohup_a_closed_terminal_is_nothing(training: list[str], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start(*training[2:], "--epochs", "3000", "--max-steps", "40")
    finally:
        signal.signal(signal.SIGHUP, before)
    log = tmp_path / "run" / "log.jsonl"
    ends = time.monotonic() + 60
    while not log.is_file() or b'"step"' not in log.read_bytes():
        assert time.monotonic() < ends and process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGHUP)
    output, messages = process.communicate(timeout=60)
    assert process.returncode == 0, messages
    assert json.loads(output)["steps"] == 40


@pytest.mark.device
def test_letters_that_an_encoding_lacks_are_escaped(tiny_bundle: Callable[[str], Bundle]) -> None:
    words = ["-m", "edge_far.cli", "predict", str(tiny_bundle("tiny-fp32").root), "w1 свет é"]
    done = run(words, stderr=subprocess.PIPE, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.endswith("w1 \\u0441\\u0432\\u0435\\u0442 \\xe9\n")
    done = run([*words, "--json"], stderr=subprocess.PIPE, env=ENVIRONMENT | {"PYTHONIOENCODING": "ascii"})
    assert json.loads(done.stdout)["predictions"][0]["text"] == "w1 свет é"


NO_SUCH = ["-m", "edge_far.cli", "profiles", "show", "nothing-é", "--json"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_an_error_keeps_its_code_where_it_cannot_be_told(stream: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(NO_SUCH, **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: full}))
    assert done.returncode == 78
    told = done.stderr if stream == "stdout" else done.stdout
    assert "nothing-" in told and "Traceback" not in told


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_on_a_full_disk_is_an_error(word: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(["-m", "edge_far.cli", word], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 74 and "standard output: cannot write: No space left on device" in done.stderr


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_all_of_it() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    script = "from edge_far.process.streams import *; make_streams_safe(); print('x' * 300_000, flush=True)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert len(file.read()) == 300_001
    assert process.communicate()[1] == b"" and process.returncode == 0


def test_messages_into_a_pipe_that_is_full_do_not_wait() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    script = "import sys; from edge_far.process.streams import *; make_streams_safe()\n"
    script += "for _ in range(300): print('x' * 999, file=sys.stderr)"
    done = run(["-c", script], stderr=writer)
    os.close(writer)
    os.close(reader)
    assert done.returncode == 0


def test_a_file_opened_later_gets_no_number_of_a_stream(tmp_path: Path) -> None:
    script = "import sys; from edge_far.process.streams import *; make_streams_safe(); file = open(sys.argv[1], 'w')\n"
    script += "print('to nobody', file=sys.stderr); print('to nobody', flush=True); sys.exit(file.fileno() <= 2)"
    done = run(["-c", WITHOUT, "012", "-c", script, str(tmp_path / "file")], stdout=None)
    assert done.returncode == 0 and (tmp_path / "file").read_text() == ""


def test_streams_that_a_program_put_there_are_left_alone() -> None:
    before = (sys.stdout, sys.stderr)
    assert sys.stdout is not sys.__stdout__, "pytest captures"
    streams.make_streams_safe()
    assert (sys.stdout, sys.stderr) == before


class Refusing:
    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")

    def flush(self) -> None:
        raise ValueError("I/O operation on closed file")

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("stream", [None, Refusing()])
def test_the_console_drops_what_it_cannot_show(
    stream: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    console = Console(verbose=True)
    console.info("one")
    console.detail("two")
    console.warn("three")
    with console.progress(1, "work") as progress:
        progress.update(1)
    assert capsys.readouterr().out == ""
