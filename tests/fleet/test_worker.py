"""A device's part in a round, with its own trainer on a tiny bundle: trained, declined, killed, offered to the gate."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_learners
from edge_far.daemon.state import StateDirectory
from tests.daemon.field import WORDS, trainer_of, wait_for
from tests.fleet.board import Board

pytestmark = pytest.mark.device


def snapshot(board: Board) -> dict[str, bytes]:
    """Return what a round must leave as it was: the releases, and which one is current."""
    model = board.state / "model"
    return {str(p.relative_to(model)): p.read_bytes() for p in model.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_round_answers_with_learners_and_figures_and_leaves_the_device_as_it_was(board: Board) -> None:
    board.know(200)
    before, current = snapshot(board), board.current()
    id = board.place()
    process = board.working()
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    answer, learners = board.answered(id)
    assert answer.outcome == "trained" and json.loads(told)["answers"][0]["outcome"] == "trained"
    assert set(learners) == set(board.learners)
    assert any(not np.array_equal(learners[name], board.learners[name]) for name in learners)
    trained, held_out = answer.figures["examples"], answer.figures["held_out_examples"]
    assert trained + held_out <= 200 and held_out > 10 and 0 <= answer.figures["held_out_score"] <= 1
    assert snapshot(board) == before and board.current() == current
    assert not (board.state / "round").exists() and not board.desk.has_order()
    # What the round has trained on is still new to the device's own cycle.
    assert board.status()["examples"]["new_examples"] == trained + held_out
    said = (board.desk.root / "answer.safetensors").read_bytes()
    assert b"label-" not in said and not any(word.encode() + b" " in said for word in WORDS)


def hot(board: Board) -> None:
    zone = board.sensors / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu")
    (zone / "temp").write_text("91000")


def on_battery(board: Board) -> None:
    supply = board.sensors / "sys/class/power_supply/BAT0"
    supply.mkdir(parents=True)
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("capacity", "80"), ("present", "1")):
        (supply / name).write_text(text)


def out_of_hours(board: Board) -> None:
    import time

    hour = (time.localtime().tm_hour + 12) % 24
    text = board.profile.read_text()
    board.profile.write_text(text + f"schedule: {{allowed_hours: '{hour:02d}:00-{hour:02d}:30'}}\n")


@pytest.mark.parametrize(("word", "make"), [("temperature", hot), ("power", on_battery), ("hours", out_of_hours)])
def test_conditions_that_do_not_hold_decline_with_their_word(
    board: Board, word: str, make: Callable[[Board], None]
) -> None:
    make(board)
    id = board.place()
    answer = board.work_here()
    assert answer is not None and (answer.outcome, answer.reason, dict(answer.figures)) == ("declined", word, {})
    assert board.answered(id)[1] == {} and not board.desk.has_order()


def test_it_declines_what_it_cannot_do(board: Board) -> None:
    board.place(bundle="0" * 64)
    answer = board.work_here()
    assert answer is not None and answer.reason == "bundle"
    board.place()
    answer = board.work_here()
    assert answer is not None and answer.reason == "examples"
    name = min(board.learners)
    board.know(30)
    board.place({**board.learners, name: np.full_like(board.learners[name], np.nan)})
    answer = board.work_here()
    assert answer is not None and answer.reason == "numbers"
    board.place({**board.learners, "more": np.zeros(3, np.float32)})
    answer = board.work_here()
    assert answer is not None and answer.reason == "names"
    assert not (board.state / "round").exists() or not list((board.state / "round").glob("run-*"))


def test_while_the_devices_own_cycle_is_at_work_it_is_busy(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_far.fleet.board.worker.LOCK_WAIT_S", 0.1)
    state = StateDirectory(board.state)
    state.prepare()
    board.place()
    with state.lock():
        answer = board.work_here()
    assert answer is not None and answer.reason == "busy"


def test_killed_in_the_midst_of_it_the_next_worker_ends_with_the_same_bytes(board: Board, tmp_path: Path) -> None:
    board.know(400)
    board.place(epochs=4, seed=3)
    process = board.working()
    log = board.state / "round" / "run-1" / "log.jsonl"
    wait_for(lambda: log.is_file() and '"checkpoint"' in log.read_text())
    trainer = trainer_of(process)
    process.kill()
    process.communicate()
    assert trainer is not None
    wait_for(lambda: not Path(f"/proc/{trainer}").exists())  # it dies with its parent
    assert board.desk.has_order()
    answer = board.work_here()
    assert answer is not None and answer.outcome == "trained"
    resumed = read_learners(board.desk.root / "answer.safetensors")
    board.place(epochs=4, seed=3)
    assert board.work_here() is not None
    undisturbed = read_learners(board.desk.root / "answer.safetensors")
    assert all(np.array_equal(resumed[name], undisturbed[name]) for name in undisturbed)


def test_asked_to_stop_it_leaves_the_order_for_the_next_worker(board: Board) -> None:
    board.know(400)
    board.place(epochs=30)
    process = board.working()
    log = board.state / "round" / "run-1" / "log.jsonl"
    wait_for(lambda: log.is_file() and '"step"' in log.read_text())
    os.kill(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert board.desk.has_order() and board.desk.last_answer() is None


def test_what_a_fleet_releases_goes_through_the_devices_own_gate(board: Board) -> None:
    board.know(600)
    factory = board.current()
    noise = np.random.default_rng(0)
    worse = {name: array + noise.normal(0, 9, array.shape).astype(np.float32) for name, array in board.learners.items()}
    board.place(epochs=4)
    assert board.work_here() is not None
    better = read_learners(board.desk.root / "answer.safetensors")
    for learners, outcome in ((better, "released"), (worse, "rejected")):
        board.place(learners, kind="release", round=7)
        answer = board.work_here()
        assert answer is not None and answer.outcome == "offered"
        cycle = board.once()["cycle"]
        assert cycle["outcome"] == outcome, cycle
        assert not (board.state / "offer").exists()
    current = board.current()
    assert current != factory
    manifest = json.loads((board.state / "model/releases" / current / "manifest.json").read_text())
    assert manifest["facts"]["kind"] == "fleet" and manifest["facts"]["rounds"] == 7
    kept = read_learners(board.state / "model/releases" / current / "learners.safetensors")
    assert all(np.array_equal(kept[name], better[name]) for name in better)
    # The device's own cycle has all its examples before it.
    examples = board.status()["examples"]
    assert examples["new_examples"] == examples["examples"] > 500


def test_an_offer_of_another_bundle_is_withdrawn_and_told(board: Board) -> None:
    board.know(30)
    learners = board.root / "learners.safetensors"
    learners.write_bytes((board.bundle / "learners.safetensors").read_bytes())
    from edge_far.daemon.intake.offers import put_offer

    put_offer(board.state / "offer", learners, bundle="0" * 64, rounds=1)
    board.profile.write_text(board.profile.read_text().replace("min_new_examples: 10", "min_new_examples: 1000"))
    board.once(status=75)
    assert not (board.state / "offer").exists()
    (note,) = [note for note in board.status()["notes"] if note["topic"] == "offer"]
    assert "another bundle" in note["text"]
