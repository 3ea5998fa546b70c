"""The control file: run, pause and stop, read once a second, with a sign of life while paused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_far.device.run.control import HEARTBEAT_S, Control
from edge_far.device.run.runlog import RunLog
from edge_far.device.run.signals import StopRequest


class Clock:
    """A clock that only sleeping moves; after `until` seconds it writes `word` to a file."""

    def __init__(self, path: Path, until: float, word: str) -> None:
        self.now, self._path, self._until, self._word = 0.0, path, until, word

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._until:
            self._path.write_text(self._word)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def events(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("content", [None, "run", "nonsense", "", "\xff"])
def test_anything_but_pause_and_stop_means_run(tmp_path: Path, log: Path, content: str | None) -> None:
    path = tmp_path / "control"
    if content is not None:
        path.write_text(content)
    with RunLog(log) as run_log:
        assert Control(path).wait(StopRequest(), run_log, 1) == 0.0
        assert Control(None).wait(StopRequest(), run_log, 1) == 0.0
    assert events(log) == []


def test_a_pause_says_that_it_lives_and_how_long_it_was(tmp_path: Path, log: Path) -> None:
    path = tmp_path / "control"
    path.write_text("pause\n")
    clock = Clock(path, 2.5 * HEARTBEAT_S, "run")
    with RunLog(log) as run_log:
        paused = Control(path, clock=lambda: clock.now, sleep=clock.sleep).wait(StopRequest(), run_log, 7)
    assert paused == pytest.approx(2.5 * HEARTBEAT_S, abs=1.5)
    found = events(log)
    assert [event["event"] for event in found] == ["paused", "paused", "paused", "resumed"]
    assert {event["step"] for event in found} == {7}


def test_stop_while_paused_asks_the_loop_to_stop(tmp_path: Path, log: Path) -> None:
    path = tmp_path / "control"
    path.write_text("pause")
    clock = Clock(path, 3.0, "stop")
    stop = StopRequest()
    with RunLog(log) as run_log:
        Control(path, clock=lambda: clock.now, sleep=clock.sleep).wait(stop, run_log, 1)
    assert stop.requested


def test_a_signal_ends_a_pause(tmp_path: Path, log: Path) -> None:
    path = tmp_path / "control"
    path.write_text("pause")
    stop = StopRequest()
    stop.request()
    with RunLog(log) as run_log:
        assert Control(path).wait(stop, run_log, 1) < 1.0
