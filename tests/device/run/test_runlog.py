"""The run log: one object a line, torn lines kept apart, failures in one line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edge_far.device.run.runlog import RunLog
from edge_far.errors import StorageError


def test_events_are_lines_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with RunLog(path) as log:
        assert log.empty
        log.write("start", note="größer\nals")
        (record,) = [json.loads(line) for line in path.read_text().splitlines()]
        assert record["event"] == "start" and record["note"] == "größer\nals"
        assert abs(record["time_s"] - time.time()) < 60
    with RunLog(path) as log:
        assert not log.empty
        log.write("resume")
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["start", "resume"]


def test_a_torn_line_stays_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "start"}\n{"event": "st')
    with RunLog(path) as log:
        log.write("resume")
    lines = path.read_text().splitlines()
    assert lines[1] == '{"event": "st' and json.loads(lines[2])["event"] == "resume"


def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    log = RunLog(Path("/dev/full"))
    with pytest.raises(StorageError, match="No space left on device") as raised, log:
        log.write("step")
    assert raised.value.where == "/dev/full" and "free space" in (raised.value.hint or "")
    with pytest.raises(StorageError, match="cannot write"):
        RunLog(tmp_path / "none" / "log.jsonl")
