"""The doctor's note for a fresh, a healthy, a deferred, a worrying and a broken device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edge_far.daemon.notes import Notes
from edge_far.daemon.releases import Releases
from edge_far.daemon.report import status, status_text
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.examples import Source, Store
from edge_far.daemon.store.journal import FINISHED, Journal
from edge_far.device.board.sensors import Power, Readings, Temperature
from edge_far.profile.document import load_profile
from edge_far.texts.data import Example

PROFILE = load_profile("rpi4-2gb")
COOL = Readings(
    temperature=Temperature(48.0, "cpu-thermal"),
    throttling=None,
    power=Power(True, None),
    available_mib=1500.0,
    cgroup_limit_mib=None,
    pressure=None,
    disk_free_mib=9000.0,
)
FIGURES = {"candidate_accuracy": 0.875, "reference_accuracy": 0.85, "examples": 120}


class Device:
    """A state directory filled by hand."""

    def __init__(self, root: Path) -> None:
        self.state = StateDirectory(root / "state")
        self.state.prepare()
        self.releases = Releases(self.state.model)
        self.store = Store(self.state.store, held_out_share=0.5)
        self.journal = Journal(self.store)
        self.notes = Notes(self.state.notes)
        self.source = root / "model"
        self.source.mkdir()
        self.release("factory", {"kind": "factory"}, None)

    def release(self, content: str, facts: dict[str, Any], replaces: str | None) -> str:
        (self.source / "model.onnx").write_text(content)
        id = self.releases.next_id(self.source)
        self.releases.publish(id, self.source, replaces=replaces, facts=facts)
        self.releases.switch(id, expected=replaces)
        return id

    def add(self, count: int) -> None:
        with self.store.transaction():
            for number in range(count):
                self.store.add(Example(f"{self.store.highest_change()} {number}", None, "x"), Source("a", 1))

    def cycle(self, outcome: str) -> None:
        current = self.releases.current_id() or ""
        row = self.journal.start("collected", change=self.store.highest_change(), base=current, details={})
        if outcome == "released":
            facts = {"kind": "adapted", "held_out": FIGURES}
            self.release(f"release {row.id}", facts, current)
        self.journal.update(row, state=FINISHED, outcome=outcome, details={"reason": "device: better"})

    def look(self, readings: Readings = COOL, running: bool = False) -> dict[str, Any]:
        return status.build(
            self.state,
            store=self.store,
            releases=self.releases,
            notes=self.notes,
            profile=PROFILE,
            readings=readings,
            settings={"profile": "rpi4-2gb"},
            running=running,
            working=running,
        )


@pytest.fixture
def device(tmp_path: Path) -> Any:
    made = Device(tmp_path)
    yield made
    made.store.close()


def test_fresh(device: Device) -> None:
    found = device.look()
    text = status_text.render(found)
    assert found["state"] == "fresh"
    assert text.splitlines()[0].startswith("Fresh: no cycle has ended yet; the application uses release 000000-")
    assert "The first cycle waits: 0 new examples, 32 needed" in " ".join(text.split())
    assert "WAIT new examples       0 new examples, 32 needed" in text
    assert "  ok   no limit or sensor voltage, memory pressure, memory limit" in text.splitlines()


def test_power_is_told_even_where_nothing_reports(device: Device) -> None:
    nothing = dataclasses.replace(COOL, power=Power(None, None))
    assert "  ok   power              no power supply reports, taken as mains" in status_text.render(
        device.look(nothing)
    )
    hat = dataclasses.replace(COOL, power=Power(None, None, "poe is offline, but there is no battery"))
    text = status_text.render(device.look(hat))
    assert "  ok   power              taken as mains: poe is offline, but there is no battery" in text


def test_healthy(device: Device) -> None:
    device.add(300)
    device.cycle("released")
    text = status_text.render(device.look())
    assert text.startswith("Healthy: the application uses release 000001-")
    assert "87.5% right on 120 held-out examples, 85.0% before" in text
    assert "What to do" not in text


def test_deferred_says_the_measured_value(device: Device) -> None:
    device.add(300)
    found = device.look(dataclasses.replace(COOL, temperature=Temperature(81.0, "cpu-thermal")))
    assert found["state"] == "deferred"
    assert found["summary"] == "Deferred: ready to train, but it has to wait: 81 C (cpu-thermal), 65 C allowed."
    assert found["advice"] == ["nothing; the next look decides anew"]


def test_deferred_by_what_no_condition_says(device: Device) -> None:
    device.add(300)
    device.journal.start("training", change=300, base="x", details={})
    device.notes.tell("waiting", "the trainer ended with status 75: memory is short")
    found = device.look()
    assert found["summary"] == "Deferred: cycle 1 waits: the trainer ended with status 75: memory is short."
    assert "Notes:" not in status_text.render(found)  # the summary has told it


def test_a_condition_that_will_not_pass_by_itself_names_the_remedy(device: Device) -> None:
    device.add(300)
    found = device.look(dataclasses.replace(COOL, cgroup_limit_mib=48.0))
    assert "the control group allows 48 MiB" in found["summary"]
    assert found["advice"] == [status_text.REMEDIES["memory limit"]]


def test_training(device: Device) -> None:
    device.add(300)
    device.journal.start("training", change=300, base="x", details={"step": 7, "steps": 90})
    text = status_text.render(device.look(running=True))
    assert text.startswith("At work on cycle 1 (training)") and "step 7 of 90" in text


def test_worrying_says_what_to_do(device: Device) -> None:
    device.add(300)
    device.cycle("released")
    device.notes.tell("store", "the database was damaged", "look for a failing card")
    text = status_text.render(device.look())
    assert text.startswith("Works, but look at this: the database was damaged.")
    assert "What to do:\n  look for a failing card" in text


def test_broken_names_the_file_and_what_to_do(device: Device) -> None:
    current = device.releases.current_id()
    assert current is not None
    (device.state.model / "releases" / current / "model.onnx").write_text("rotten!")
    found = device.look()
    assert found["state"] == "broken"
    assert f"{current}/model.onnx" in found["summary"]
    repaired = "'systemctl start edge-far', or 'edge-far daemon --once': it goes back to the last good release"
    assert found["advice"] == [repaired]
    text = status_text.render(found)
    assert text.startswith("Broken: the current release is not usable") and "Traceback" not in text


def test_nothing_can_be_opened(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    found = status.build(
        state,
        **{"store": None, "releases": None, "notes": Notes(state.notes), "profile": None, "readings": None},
        **{"settings": {}, "running": False, "working": False},
        problems=["the examples' store cannot be used: it is damaged"],
    )
    assert found["state"] == "broken"
    assert status_text.render(found).startswith("Broken: the examples' store cannot be used: it is damaged.")
