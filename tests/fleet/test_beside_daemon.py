"""Rounds beside a daemon that looks by itself, real processes: trained while it waits, declined in a cycle's midst.

Daemon and worker are killed, or asked to end, in the midst of it; nothing is lost.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from edge_far.bundles.arrays import read_learners
from edge_far.fleet.terms import Answer
from tests.daemon.field import PROFILE, environment, has_stepped, wait_for
from tests.daemon.invariants import current_problem, examples_in
from tests.fleet.board import Board

pytestmark = pytest.mark.device

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def started(board: Board) -> Iterator[Start]:
    """Return what starts a daemon that looks every day or as often as asked, by default after its first look."""
    running: list[subprocess.Popen[str]] = []

    def start(minutes: str = "1440") -> subprocess.Popen[str]:
        looked = board.state / "status.json"
        looked.unlink(missing_ok=True)
        command = board.command("daemon", "--interval-minutes", minutes)
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True, "env": environment()}
        running.append(subprocess.Popen(command, **streams))
        wait_for(lambda: looked.exists() and not at_work(board))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def at_work(board: Board) -> bool:
    from edge_far.daemon.state import StateDirectory

    return StateDirectory(board.state).working_pid() is not None


def worked(board: Board) -> Answer:
    """Have a worker of its own look once, and return what it answered."""
    process = board.working()
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (answer,) = json.loads(told)["answers"]
    return Answer(answer["outcome"], answer["reason"], answer["figures"])


def sound(board: Board, known: list[tuple[str, str]]) -> None:
    """Nothing is lost, nothing half released, and the same daemon's next cycle has all that is new."""
    assert examples_in(board.state) == known
    assert current_problem(board.state) is None


def test_while_it_waits_a_round_trains_and_the_next_cycle_has_all_its_examples(board: Board, started: Start) -> None:
    board.know(400)
    known = examples_in(board.state)
    board.profile.write_text(PROFILE.replace("min_new_examples: 10", "min_new_examples: 401"))
    daemon = started()
    board.place()
    answer = worked(board)
    assert answer.outcome == "trained" and answer.figures["examples"] > 250, answer
    sound(board, known)
    status = board.status()
    assert status["daemon"]["running"] and status["state"] != "training"
    # The waiting daemon has the last word: what the fleet releases is judged by its gate, asked for by the worker.
    board.place(read_learners(board.desk.root / "answer.safetensors"), kind="release", round=3)
    assert worked(board).outcome == "offered"
    wait_for(lambda: not (board.state / "offer").exists() and not at_work(board))
    assert board.status()["last_cycle"]["outcome"] == "released" and daemon.poll() is None
    # And its own next cycle is as ever: all 400 are new to it, and one more is enough.
    board.drop('{"text": "w1 w6 w11 w16", "label": "label-1"}\n')
    assert board.run("adapt")["cycle"] == 2
    wait_for(lambda: (board.status()["last_cycle"] or {}).get("id") == 2)
    counts = board.status()["last_cycle"]["examples"]
    assert counts["train.jsonl"] + counts["held_out.jsonl"] == 401
    daemon.terminate()
    assert daemon.wait(15) == 75


def test_in_the_midst_of_its_cycle_a_round_is_declined_and_the_cycle_goes_on(
    board: Board, started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_far.fleet.board.worker.LOCK_WAIT_S", 0.2)
    board.profile.write_text(PROFILE.replace("min_new_examples: 10", "min_new_examples: 10, epochs: 30"))
    daemon = started()
    board.feed(400)
    assert board.run("adapt")["cycle"] == 1
    wait_for(lambda: has_stepped(board))
    board.place()
    answer = board.work_here()
    assert answer is not None and (answer.outcome, answer.reason) == ("declined", "busy")
    assert board.status()["state"] == "training"
    known = examples_in(board.state)
    # SIGKILL in the midst of it: a round may train before the daemon is back, and the cycle goes on where it was.
    daemon.kill()
    daemon.wait()
    wait_for(lambda: not at_work(board))  # its trainer dies with it
    board.place()
    assert worked(board).outcome == "trained"
    sound(board, known)
    assert board.status()["cycle_under_way"]["id"] == 1
    board.profile.write_text(PROFILE)
    started()
    wait_for(lambda: board.status()["last_cycle"], 120)
    last = board.status()["last_cycle"]
    assert (last["id"], last["outcome"], last["attempt"]) == (1, "released", 1)
    sound(board, known)


def test_a_look_that_is_due_comes_behind_the_round(board: Board) -> None:
    board.know(300)
    known = examples_in(board.state)
    board.place(epochs=100)
    worker = board.working()
    log = board.state / "round" / "run-1" / "log.jsonl"
    wait_for(lambda: log.is_file() and '"step"' in log.read_text())
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()}
    with subprocess.Popen(board.command("daemon", "--interval-minutes", "1440"), **streams) as daemon:
        wait_for(lambda: (board.state / "waiting").is_file())
        assert daemon.poll() is None and worker.poll() is None and board.status()["last_cycle"] is None
        worker.terminate()
        worker.communicate(timeout=30)
        assert worker.returncode == 75
        wait_for(lambda: board.status()["last_cycle"])  # the look that was due, two seconds later
        daemon.terminate()
        assert daemon.wait(15) == 75
    assert board.desk.has_order() and (board.state / "round" / "run-1" / "run.json").is_file()
    sound(board, known)


def test_two_daemons_do_not_look_by_themselves_and_one_that_waits_is_told_of(board: Board, started: Start) -> None:
    first = started()
    told = board.run("daemon", "--interval-minutes", "1440", status=75)["error"]
    assert f"another edge-far daemon (process {first.pid}) looks here by itself" in told["message"]
    assert board.once(status=75)["deferred"]  # a look by hand is no daemon
    assert board.status()["daemon"]["running"]
    first.kill()
    first.wait()
    assert not board.status()["daemon"]["running"]
