"""SIGTERM unwinds as Ctrl-C does: nothing half done is left, and the exit code is that of a stop in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_far.process.termination import Terminated, unwinding

STAGING = """
import sys, time
from pathlib import Path
from edge_far import cli
from edge_far.storage import staged_directory

def run(options, console):
    with staged_directory(Path(sys.argv[1])) as staging:
        (staging / "half").write_text("done")
        print("begun", flush=True)
        time.sleep(60)

cli._module("demo").run = run
sys.exit(cli.main(["demo", "--out", "unused", "-q"]))
"""


def test_a_command_that_is_asked_to_end_leaves_nothing(tmp_path: Path) -> None:
    words = [sys.executable, "-c", STAGING, str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begun\n" and len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.stderr.read().startswith("edge-far: error: stopped by SIGTERM (")
    assert process.returncode == 75 and not list(tmp_path.iterdir())


def test_the_handler_of_before_comes_back() -> None:
    with pytest.raises(Terminated), unwinding():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_another_thread_and_another_handler_are_left_alone() -> None:
    def inside() -> None:
        with unwinding():
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[object] = []
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        inside()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert found == [signal.SIG_DFL, signal.SIG_IGN]
