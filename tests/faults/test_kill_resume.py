"""kill -9, Ctrl-C and SIGTERM at random moments, then --resume: the same bytes as an uninterrupted run's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from tests.faults.processes import edge_far, events, fail, learners_of, start, succeed
from tests.other_tasks import BUNDLES, relabelled
from tests.tiny_cases import REPOSITORY

pytestmark = pytest.mark.device

PATIENCE_S = 30.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "name", "optimizer"),
    [
        ("KILL", "tiny-fp32", "adamw"),
        ("KILL", "tiny-int8", "adamw8bit"),
        ("INT", "tiny-int8", "lion"),
        ("TERM", "bert-r10-5-dropout", "sgd"),
        ("KILL", "roberta-top1-5-dropout", "adamw"),
        ("KILL", BUNDLES["regress"], "adamw"),
        ("KILL", BUNDLES["multilabel"], "adamw8bit"),
        ("KILL", BUNDLES["tag"], "adamw"),
        ("KILL", BUNDLES["answer"], "adamw"),
    ],
)
def test_result_is_that_of_an_uninterrupted_run(
    kind: str, name: str, optimizer: str, tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    script = REPOSITORY / "scripts" / "kill_resume.py"
    task = {name: task for task, name in BUNDLES.items()}.get(name)
    data = tiny_data if task is None else relabelled(tiny_data, tmp_path / "train.jsonl", task)
    command = [sys.executable, str(script), str(tiny_bundle(name).root), "--train", str(data), "--kills", "3"]
    command += ["--signal", kind, "--work", str(tmp_path), "--", "--epochs", "10", "--checkpoint-steps", "3"]
    command += ["--no-probe", "--optimizer", optimizer, "--learning-rate", "0.001"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["signals"] == 3 and report["identical"] == report["runs"] >= 1


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)


def said(run: Path, event: str, count: int = 1) -> bool:
    """Say whether a run's log has `count` events of a kind."""
    log = run / "log.jsonl"
    return log.is_file() and log.read_bytes().count(f'"event": "{event}"'.encode()) >= count


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)])
def test_signal_while_training_leaves_a_checkpoint(
    number: signal.Signals, code: int, tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    arguments = ["train", tiny_bundle("tiny-fp32").root, "--train", tiny_data, "--epochs", "3000", "--json", "-q"]
    run = tmp_path / "run"
    process = start(*arguments, "--out", run)
    wait_until(lambda: said(run, "step", 5), process)
    process.send_signal(number)
    output, messages = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, messages
    last = events(run, "step")[-1]["step"]
    assert (run / "checkpoints" / f"step-{last:08d}" / "state.json").is_file(), "no step is lost"
    assert "Traceback" not in messages
    error = json.loads(output)["error"]
    assert error["message"] == f"stopped after step {last} of 9000, checkpoint written"
    assert error["hint"] == "continue with --resume"
    fail(66, "merge", arguments[1], "--run", run, "--out", tmp_path / "model", says="finish it with")


def test_sigterm_while_evaluating_is_honoured_and_the_result_is_the_same(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    held_out = tmp_path / "eval.jsonl"
    held_out.write_text(tiny_data.read_text() * 800)  # takes many times longer than the training
    arguments = ["train", tiny_bundle("tiny-fp32").root, "--train", tiny_data, "--eval", held_out, "--max-steps", "3"]
    run = tmp_path / "run"
    process = start(*arguments, "--out", run, "-q")
    wait_until(lambda: said(run, "checkpoint"), process)
    time.sleep(0.1)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    messages = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 75, messages
    assert time.monotonic() - sent < 2.0
    assert not events(run, "eval") and not (run / "best").exists()
    held_out_again = succeed(*arguments, "--out", run, "--resume")
    whole = succeed(*arguments, "--out", tmp_path / "whole")
    assert held_out_again["eval"] == whole["eval"] and whole["eval"]["examples"] == 9_600
    assert learners_of(run) == learners_of(tmp_path / "whole")


def test_second_process_on_the_same_run_is_refused(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    arguments = ["train", tiny_bundle("tiny-fp32").root, "--train", tiny_data, "--epochs", "3000"]
    run = tmp_path / "run"
    process = start(*arguments, "--out", run, "-q")
    wait_until(lambda: said(run, "step"), process)
    fail(75, *arguments, "--out", run, "--resume", says="another process is training this run")
    assert process.poll() is None, "the first one goes on"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75


def test_start_that_was_killed_before_its_first_file_can_be_repeated(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / ".run.json.1234-abcdef01.tmp").write_text("{")
    succeed("train", tiny_bundle("tiny-fp32").root, "--train", tiny_data, "--out", run)
    assert not list(run.glob(".*"))


def test_resume_with_a_damaged_newest_checkpoint_goes_back_to_the_one_before(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    arguments = ["train", tiny_bundle("tiny-fp32").root, "--train", tiny_data, "--epochs", "4"]
    run, whole = tmp_path / "run", tmp_path / "whole"
    expected = succeed(*arguments, "--out", whole)
    assert succeed(*arguments, "--out", run)["learners_sha256"] == expected["learners_sha256"]
    for name in ("result.json", "learners.safetensors"):
        (run / name).unlink()
    newest = sorted((run / "checkpoints").iterdir())[-1] / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    done = edge_far(*arguments, "--out", run, "--resume", "--json", "-q")
    assert done.returncode == 0 and "1 damaged checkpoint passed over: continuing from step 9" in done.stderr
    again = json.loads(done.stdout)
    assert again["resumed_from_step"] == 9 and again["steps"] == 12
    assert again["final_loss"] == expected["final_loss"]
    assert learners_of(run) == learners_of(whole)
