"""Reading run logs: torn lines, resumed runs, damaged values."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edge_far.errors import DataError, InputMissing
from edge_far.report.runlog import EvalPoint, StepPoint, read_run_log

START = {
    "event": "start",
    "time_s": 0.0,
    "profile": "rpi-zero2w-512",
    "budget_mib": 300,
    "steps": 6,
    "plan": {},
}


def step(number: int, time_s: float, loss: float, **more: Any) -> dict[str, Any]:
    return {"event": "step", "step": number, "time_s": time_s, "loss": loss, **more}


def write(path: Path, *records: dict[str, Any] | str) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) + "\n" for record in records]
    path.write_text("".join(lines))
    return path


def test_reads_a_plain_run_from_its_directory(tmp_path: Path) -> None:
    write(
        tmp_path / "log.jsonl",
        START,
        step(1, 1.0, 2.5, rss_mib=200.0, peak_rss_mib=210.0),
        step(2, 2.0, 2.0, rss_mib=205, peak_rss_mib=211),
        {"event": "eval", "step": 2, "time_s": 2.5, "accuracy": 0.5, "loss": 1.0, "macro_f1": 0.4},
        {"event": "checkpoint", "step": 2, "time_s": 2.6},
        {"event": "end", "time_s": 2.7},
    )
    log = read_run_log(tmp_path)
    assert log.steps == [StepPoint(1, 1.0, 2.5), StepPoint(2, 2.0, 2.0)]
    assert log.evals == [EvalPoint(2, "accuracy", 0.5)]
    assert log.memory == [(1.0, 200.0), (2.0, 205.0)]
    assert (log.profile, log.budget_mib, log.planned_steps, log.peak_rss_mib) == (
        "rpi-zero2w-512",
        300,
        6,
        211,
    )
    assert log.resumes == [] and log.torn_lines == 0


def test_what_is_no_file_or_has_no_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is no file"):
        read_run_log(Path("/dev/zero"))
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(DataError, match="is no file"):
        read_run_log(tmp_path)
    path = tmp_path / "copy.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no place on the disk
    with pytest.raises(DataError, match=r"copy.jsonl:1: the line is longer than 1048576 bytes"):
        read_run_log(path)
    monkeypatch.setattr("edge_far.report.runlog.MOST_BYTES", 500)
    with pytest.raises(DataError, match=r"longer than 500 bytes"):
        read_run_log(write(path, START, *(step(n, float(n), 1.0) for n in range(1, 9))))


@pytest.mark.parametrize("torn", ['{"event":"step","st', "\0\0\0\0", '{"event":"step","step":3,"loss":1.0,"time_s":3'])
def test_a_torn_last_line_is_skipped(tmp_path: Path, torn: str) -> None:
    log = read_run_log(write(tmp_path / "log.jsonl", START, step(1, 1.0, 2.5), torn))
    assert [point.step for point in log.steps] == [1]


@pytest.mark.parametrize("resume_line", [True, False])
def test_of_repeated_steps_the_later_counts(tmp_path: Path, resume_line: bool) -> None:
    records = [START, *(step(n, float(n), 9.0, rss_mib=100 + n) for n in range(1, 6))]
    records.append({"event": "eval", "step": 4, "accuracy": 0.1})
    resumed = [{"event": "resume", "step": 2, "time_s": 0.0}] if resume_line else []
    after = [step(3, 1.0, 1.0, rss_mib=150), {"event": "eval", "step": 3, "accuracy": 0.7}]
    log = read_run_log(write(tmp_path / "log.jsonl", *records, '{"eve\n', *resumed, *after))
    assert [(point.step, point.loss) for point in log.steps] == [(1, 9.0), (2, 9.0), (3, 1.0)]
    assert log.evals == [EvalPoint(3, "accuracy", 0.7)]
    times = [time_s for time_s, _ in log.memory]
    assert times == sorted(times) and len(times) == 6  # memory really used, repeated steps included
    assert log.peak_rss_mib == 150
    assert log.torn_lines == 1
    assert log.resumes == ([2] if resume_line else [])


@pytest.mark.parametrize("clock", [0.0, 8.0, 5000.0])
def test_a_resumed_session_is_put_behind_the_one_before(tmp_path: Path, clock: float) -> None:
    resume = {"event": "resume", "step": 1, "time_s": clock}
    records = [START, step(1, 10.0, 1.0), resume, step(2, clock + 1.0, 1.0), step(3, clock + 4.0, 1.0)]
    log = read_run_log(write(tmp_path / "log.jsonl", *records))
    assert [point.time_s for point in log.steps] == [10.0, 11.0, 14.0]


@pytest.mark.parametrize("first", [{**START, "time_s": 1.8e9}, {"event": "checkpoint", "step": 0, "time_s": 1.8e9}])
def test_time_counts_from_the_first_record(tmp_path: Path, first: dict[str, Any]) -> None:
    records = [step(1, 1.8e9 + 2, 1.0), {"event": "resume", "step": 1, "time_s": 1.9e9}, step(2, 1.9e9 + 3, 1.0)]
    log = read_run_log(write(tmp_path / "log.jsonl", first, *records))
    assert [point.time_s for point in log.steps] == [2.0, 5.0]


def test_time_never_runs_backwards(tmp_path: Path) -> None:
    log = read_run_log(write(tmp_path / "log.jsonl", START, step(1, 10.0, 1.0), step(2, 1.0, 1.0)))
    assert [point.time_s for point in log.steps] == [10.0, 10.0]


def test_values_not_measured_are_left_out(tmp_path: Path) -> None:
    log = read_run_log(write(tmp_path / "log.jsonl", step(1, 1.0, 1.0, rss_mib=None)))
    assert log.memory == [] and log.peak_rss_mib is None and log.budget_mib is None and log.profile is None


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (step(1, 1.0, float("nan")), "log.jsonl:2: 'loss' is nan"),
        (step(1, 1.0, 1.0) | {"step": "one"}, "log.jsonl:2: 'step' is 'one'"),
        (step(1, 1.0, 1.0) | {"step": 1.5}, "log.jsonl:2: 'step' is 1.5"),
        ({"event": "step", "step": 1, "loss": 1.0}, "log.jsonl:2: 'time_s' is None"),
        (step(1, 1.0, 1.0, rss_mib="big"), "log.jsonl:2: 'rss_mib' is 'big'"),
    ],
)
def test_damaged_values_name_file_and_line(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_run_log(write(tmp_path / "log.jsonl", START, record))
    assert message in str(caught.value)


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        read_run_log(tmp_path)
    with pytest.raises(DataError, match="no training step"):
        read_run_log(write(tmp_path / "log.jsonl", ""))
    (tmp_path / "picture.png").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(DataError, match=r"is not the log of a run .*edge-far train --out"):
        read_run_log(tmp_path / "picture.png")
