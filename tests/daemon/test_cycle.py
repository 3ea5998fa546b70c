"""Whole cycles on a tiny bundle, run as the timer runs them: the good ones, and every way they can end otherwise."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.identity import example_key, is_held_out
from tests.daemon.field import Field, has_stepped, kill_trainer, trainer_of, wait_for
from tests.foreign_tokens import FOREIGN, with_foreign_token

pytestmark = pytest.mark.device


def accuracy_by_hand(release: Path, examples: list[tuple[str, str]]) -> float:
    """Measure a release as an application would use it: one text at a time, nothing of edge-far."""
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(release / "model.onnx")
    tokenizer = Tokenizer.from_file(str(release / "tokenizer.json"))
    labels = json.loads((release / "labels.json").read_text())
    right = 0
    for text, label in examples:
        ids = np.array([tokenizer.encode(text).ids[:64]], np.int64)
        (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        right += labels[int(np.asarray(logits)[0].argmax())] == label
    return right / len(examples)


def held_out(field: Field) -> list[tuple[str, str]]:
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        return connection.execute("SELECT text, label FROM examples WHERE held_out = 1").fetchall()


def test_fresh_then_released_then_nothing_new(field: Field) -> None:
    assert "0 new examples" in field.once(status=75)["deferred"]
    factory = field.current()
    field.feed(600)
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "released"
    assert field.current() == cycle["candidate"] != factory
    found = cycle["details"]["decision"]["device"]
    releases = field.state / "model" / "releases"
    assert accuracy_by_hand(releases / cycle["candidate"], held_out(field)) == pytest.approx(
        found["candidate_accuracy"]
    )
    assert accuracy_by_hand(releases / factory, held_out(field)) == pytest.approx(found["reference_accuracy"])
    assert found["candidate_accuracy"] > found["reference_accuracy"] + 0.1
    assert not (field.state / "cycle").exists()
    assert "0 new examples" in field.once(status=75)["deferred"]


def test_a_worse_candidate_is_rejected_and_the_data_counts_as_seen(released: Field) -> None:
    before = released.current()
    # Only what trains is wrong: one label for all that is not held out. The gate must see it.
    released.feed(900, seed=1)
    document = mislabelled(released)
    assert document["cycle"]["outcome"] == "rejected"
    assert "accuracy" in document["cycle"]["details"]["reason"]
    assert released.current() == before
    released.once(status=75)


def mislabelled(field: Field) -> dict[str, Any]:
    """Ingest, give all training examples one label in the store, then run the cycle."""
    profile = field.profile.read_text()
    field.profile.write_text(profile.replace("min_new_examples: 10", "min_new_examples: 100000"))
    field.once(status=75)
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        connection.execute("UPDATE examples SET label = 'label-0' WHERE held_out = 0")
    field.profile.write_text(profile)
    return field.once()


def test_a_health_command_may_veto(field: Field) -> None:
    command = "health_command: \"sh -c 'echo no; exit 3'\""
    field.profile.write_text(field.profile.read_text().replace("10}", f"10, {command}}}"))
    field.feed(600)
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "rejected"
    assert cycle["details"]["health"] == "the health command ended with status 3: no"
    assert field.current().startswith("000000-")


def test_sigterm_leaves_a_checkpoint_and_the_result_is_the_same(field: Field, tmp_path: Path) -> None:
    field.feed(900)
    process = field.start()
    wait_for(lambda: has_stepped(field))
    began = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 75, errors
    assert time.monotonic() - began < 10
    assert field.status()["state"] == "deferred"
    resumed = field.once()["cycle"]
    assert resumed["outcome"] == "released"
    other = Field(tmp_path / "other", field.bundle) if (tmp_path / "other").mkdir() is None else field
    other.feed(900)
    straight = other.once()["cycle"]
    files = [f.state / "model" / "current" / "learners.safetensors" for f in (field, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert straight["candidate"] == resumed["candidate"]


def test_a_killed_trainer_is_retried_smaller_and_then_the_data_set_aside(field: Field) -> None:
    field.feed(1500)
    process = field.start()
    for attempt in (1, 2):
        wait_for(lambda: field.run_log.parent.name == f"run-{attempt}" and has_stepped(field))  # noqa: B023
        kill_trainer(process)
        wait_for(lambda: process.poll() is not None or field.run_log.parent.name != f"run-{attempt}")  # noqa: B023
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    cycle = json.loads(output)["cycle"]
    assert cycle["outcome"] == "failed"
    assert cycle["details"]["micro_batch_limit"] == 2  # half of the bundle's batch of 4
    count = cycle["details"]["set_aside"]
    assert 1490 < count <= 1500  # a few texts are the same by chance
    status = field.status()
    assert status["state"] == "attention" and "set aside" in status["summary"]
    field.once(status=75)
    assert field.run("store", "bring-back")["brought_back"] == count
    assert field.once()["cycle"]["outcome"] == "released"
    assert field.status()["state"] == "healthy"


def test_a_stalled_trainer_is_killed_and_retried(field: Field) -> None:
    field.feed(900)
    process = field.start("--stall-seconds", "2")
    wait_for(lambda: has_stepped(field))
    kill_trainer(process, signal.SIGSTOP)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    details = json.loads(output)["cycle"]["details"]
    assert "made no progress and was killed" in details["deaths"][0]
    assert json.loads(output)["cycle"]["outcome"] == "released"


def test_a_device_that_was_frozen_as_a_whole_does_not_count_as_stalled(field: Field) -> None:
    field.feed(1500)
    process = field.start("--stall-seconds", "3")
    wait_for(lambda: has_stepped(field))
    frozen = [process.pid, kill_trainer(process, signal.SIGSTOP)]
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(12)  # longer than GAP_S and the stall
    for pid in frozen:  # the daemon first: it must not judge before the trainer had its chance
        os.kill(pid, signal.SIGCONT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "deaths" not in json.loads(output)["cycle"]["details"]


def test_a_killed_daemon_takes_its_trainer_along_and_the_next_one_goes_on(field: Field) -> None:
    field.feed(900)
    process = field.start()
    wait_for(lambda: has_stepped(field))
    trainer = trainer_of(process)
    process.kill()
    process.communicate()
    wait_for(lambda: not Path(f"/proc/{trainer}").exists() or "Z" in Path(f"/proc/{trainer}/stat").read_text(), 5)
    assert field.once()["cycle"]["outcome"] == "released"


def test_a_rollback_meanwhile_discards_the_candidate(released: Field) -> None:
    released.feed(1500, seed=1)
    process = released.start()
    wait_for(lambda: has_stepped(released))
    assert released.run("rollback")["current"].startswith("000000-")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert json.loads(output)["cycle"]["outcome"] == "discarded"
    assert released.current().startswith("000000-")
    # The same examples, from the release that is current now.
    assert released.once()["cycle"]["outcome"] == "released"


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_a_damaged_current_release_falls_back_and_says_so(released: Field, harm: str) -> None:
    field, damaged = released, released.current()
    file = field.state / "model" / "releases" / damaged / "weights.bin"
    if harm == "flip":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif harm == "truncate":
        os.truncate(file, 1000)
    else:
        file.unlink()
    assert field.status()["state"] == "broken"
    field.once(status=75)
    assert field.current().startswith("000000-")
    status = field.status()
    assert status["state"] == "attention" and "went back to release 000000-" in status["summary"]
    field.feed(200, seed=2)
    assert field.once()["cycle"]["outcome"] == "released"
    assert field.status()["state"] == "healthy"


def test_two_daemons_at_once(field: Field) -> None:
    field.once(status=75)
    with StateDirectory(field.state).lock():
        began = time.monotonic()
        document = field.run("daemon", "--once", status=75)
        assert "another edge-far daemon" in document["error"]["message"]
        assert time.monotonic() - began < 30
        assert field.status()["daemon"]["running"]
    assert not field.status()["daemon"]["running"]


def test_labels_the_model_does_not_know_are_quarantined(field: Field) -> None:
    field.drop('{"text": "w1", "label": "label-77"}\nnot json\n{"text": "w2", "label": "label-2"}\n')
    document = field.once(status=75)
    assert document["spool"]["quarantined"] == 2 and document["spool"]["new"] == 1
    lines = field.run("store", "quarantine")["lines"]
    assert {(entry["line"], entry["reason"].split(" ")[0]) for entry in lines} == {(1, "unknown"), (2, "broken")}


@pytest.fixture
def no_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume as soon as all is fine, and look often."""
    from functools import partial

    from edge_far.daemon.training import overseer

    monkeypatch.setattr(overseer, "PauseControl", partial(overseer.PauseControl, hold_s=0.2))
    monkeypatch.setattr(overseer, "READING_S", 0.1)


def zone(field: Field, celsius: float) -> None:
    folder = field.sensors / "sys/class/thermal/thermal_zone0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text("cpu-thermal\n")
    (folder / "temp").write_text(f"{celsius * 1000:.0f}\n")


def test_heat_pauses_training_and_coolness_resumes_it(field: Field, no_hold: None) -> None:
    from edge_far.console import Console
    from edge_far.daemon.context import Places
    from edge_far.daemon.service import ServiceSettings, running_service
    from edge_far.device.board.sensors import Sensors
    from edge_far.process.termination import Signals

    zone(field, 50)
    field.feed(9000)
    settings = ServiceSettings(Places(field.state, field.bundle, str(field.profile), sensors_root=field.sensors))
    seen: list[str] = []
    read: Callable[[Sensors], object] = Sensors.read

    def heating(self: Sensors) -> object:
        """Hot once training is seen, cool again once the pause is seen."""
        text = field.run_log.read_text() if field.run_log.is_file() else ""
        if '"paused"' in text:
            zone(field, 60)
        elif '"step"' in text:
            zone(field, 80)
        seen.append(text[-1:])
        return read(self)

    with pytest.MonkeyPatch.context() as patch, Signals() as signals:
        patch.setattr(Sensors, "read", heating)
        with running_service(settings, signals, Console(quiet=True)) as service:
            outcome = service.tick()
    assert outcome.cycle is not None and outcome.cycle.outcome == "released"
    if outcome.cycle.details["paused_s"] == 0:
        pytest.skip("a fast machine: training ended before the sensors were read while it ran")
    assert outcome.cycle.details["paused_s"] > 0


def test_too_hot_to_start_says_the_measured_value(field: Field) -> None:
    zone(field, 71)
    field.feed(600)
    assert "71 C (cpu-thermal), 65 C allowed" in field.once(status=75)["deferred"]
    status = field.status()
    assert status["state"] == "deferred" and "71 C" in status["summary"]


def test_a_text_with_a_token_that_the_model_does_not_have_is_quarantined_alone(field: Field, tmp_path: Path) -> None:
    field.bundle = with_foreign_token(field.bundle, tmp_path / "bundle")
    field.feed(600)
    texts = [f"w{number} {FOREIGN} w{number}" for number in range(20)]
    judging = sum(is_held_out(example_key(text), 0.2) for text in texts)
    assert 0 < judging < 20, "the trainer meets some, the gate the others"
    field.drop("".join(json.dumps({"text": text, "label": "label-0"}) + "\n" for text in texts))
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "released"
    lines = field.run("store", "quarantine")["lines"]
    assert sorted(entry["line"] for entry in lines) == list(range(1, 21))
    assert all(f"has the token '{FOREIGN}' (id 100), and the model knows 100 tokens" in e["reason"] for e in lines)
    assert cycle["details"]["unreadable"] == 20 - judging
    status = field.status()["examples"]
    assert (status["quarantined"], status["set_aside"]) == (20, 0)
    assert cycle["details"]["decision"]["device"]["examples"] == status["held_out"]


def test_nothing_but_texts_that_the_model_cannot_read(field: Field, tmp_path: Path) -> None:
    field.bundle = with_foreign_token(field.bundle, tmp_path / "bundle")
    field.feed(400, prefix=f"{FOREIGN} ")
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "discarded" and "the model can read none of the texts" in cycle["details"]["reason"]
    status = field.status()["examples"]
    assert (status["set_aside"], status["quarantined"]) == (0, cycle["details"]["unreadable"])
    assert status["quarantined"] > 250
