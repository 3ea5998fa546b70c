"""The log of a training run (RUN/log.jsonl) as the points a report needs; standard library only.

A run may have been cut off and resumed. A line torn by a power cut is skipped, and of a step that appears
twice the later one counts: what came after the checkpoint that a resume started from was thrown away. The
time axis counts the seconds the run was at work, each session put behind the one before.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from edge_far.errors import DataError, InputMissing, StorageError
from edge_far.tasks.figures import headline_of

__all__ = ["EvalPoint", "RunLog", "StepPoint", "read_run_log"]

LOG_NAME = "log.jsonl"
MOST_LINE_BYTES = 1 << 20
MOST_BYTES = 256 << 20  # a million steps
LARGEST = 1e15  # no count, size or time of a run is beyond it


@dataclass(frozen=True, slots=True)
class StepPoint:
    """One optimiser step that counts: its number, the seconds of the run so far, and its training loss."""

    step: int
    time_s: float
    loss: float


@dataclass(frozen=True, slots=True)
class EvalPoint:
    """One evaluation after `step` steps: the headline figure, by its name in tasks/figures.py."""

    step: int
    figure: str
    value: float


@dataclass(slots=True)
class RunLog:
    """The steps and evaluations that count, every memory sample, the facts of the start line (or None)."""

    steps: list[StepPoint] = field(default_factory=list)
    evals: list[EvalPoint] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # (seconds, MiB), repeated steps included
    profile: str | None = None
    method: str | None = None  # the rung that trained, and why it was chosen where that was measured
    reason: str | None = None
    budget_mib: float | None = None
    planned_steps: int | None = None
    peak_rss_mib: float | None = None  # the largest of all sessions
    resumes: list[int] = field(default_factory=list)
    torn_lines: int = 0


def read_run_log(run: Path) -> RunLog:
    """Read the log of a run directory, or a log file itself.

    Raises InputMissing (66) where there is none, StorageError (74), DataError (65) for a log without a step, and for
    what is no file or has no end.
    """
    path = Path(run)
    if path.is_dir():
        path = path / LOG_NAME
    log = RunLog()
    builder = _Builder(log)
    events = lines = 0
    for number, record in _records(path, log):
        builder.add(record, f"{path}:{number}")
        events += isinstance(record.get("event"), str)
        lines += 1
    if lines + log.torn_lines and not events:
        hint = "give the directory that edge-far train --out wrote, or its log.jsonl"
        raise DataError("is not the log of a run", where=str(path), hint=hint)
    if not log.steps:
        raise DataError("the log holds no training step", where=str(path), hint="train for at least one step")
    return log


def _records(path: Path, log: RunLog) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with _opened(path) as file:
            yield from _lines(file, path, log)
    except FileNotFoundError as error:
        raise InputMissing(
            "no such run log", where=str(path), hint="give the directory that edge-far train --out wrote"
        ) from error
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=str(path)) from error


def _opened(path: Path) -> BinaryIO:
    """Open a regular file, without waiting where it is something else; raises DataError for what is none, OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError("is no file", where=str(path), hint="name a run's directory, or a copy of its log.jsonl")
    return os.fdopen(descriptor, "rb")


def _lines(file: BinaryIO, path: Path, log: RunLog) -> Iterator[tuple[int, dict[str, Any]]]:
    number = size = 0
    while line := file.readline(MOST_LINE_BYTES + 1):
        number, size = number + 1, size + len(line)
        if len(line) > MOST_LINE_BYTES or size > MOST_BYTES:
            what = f"the line is longer than {MOST_LINE_BYTES}" if size <= MOST_BYTES else f"longer than {MOST_BYTES}"
            raise DataError(f"{what} bytes", where=f"{path}:{number}", hint="no training writes such a log")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            yield number, record
        elif line.strip(b"\0 \t"):
            log.torn_lines += 1


class _Builder:
    """Puts one record after the other into a RunLog; `offset_s` turns the clock's time into seconds at work."""

    def __init__(self, log: RunLog) -> None:
        self.log = log
        self.offset_s: float | None = None  # until the first record: time counts from there
        self.last_s = 0.0

    def add(self, record: dict[str, Any], where: str) -> None:
        event = record.get("event")
        if self.offset_s is None and (began := _optional(record, "time_s", where)) is not None:
            self.offset_s = -began
        if event == "start":
            self._start(record, where)
        elif event == "resume":
            step = _whole(record, "step", where)
            self._forget_after(step)
            self.log.resumes.append(step)
            self.offset_s = self.last_s - (_optional(record, "time_s", where) or 0.0)
        elif event == "step":
            self._step(record, where)
        elif event == "eval" and (figure := headline_of(record)) is not None:
            value = _number(record, figure, where)
            step = _whole(record, "step", where)
            self.log.evals = [point for point in self.log.evals if point.step < step]
            self.log.evals.append(EvalPoint(step, figure, value))

    def _start(self, record: dict[str, Any], where: str) -> None:
        self.log.profile = _text(record, "profile")
        self.log.method, self.log.reason = _text(record, "method"), _text(record, "reason") or None
        self.log.budget_mib = _optional(record, "budget_mib", where)
        steps = _optional(record, "steps", where)
        self.log.planned_steps = None if steps is None else int(steps)

    def _step(self, record: dict[str, Any], where: str) -> None:
        step = _whole(record, "step", where)
        offset_s = self.offset_s or 0.0
        time_s = _number(record, "time_s", where) + offset_s
        if time_s < self.last_s:
            self.offset_s = offset_s + self.last_s - time_s
            time_s = self.last_s
        self.last_s = time_s
        self._forget_after(step - 1)
        self.log.steps.append(StepPoint(step, time_s, _number(record, "loss", where)))
        resident = _optional(record, "rss_mib", where)
        if resident is not None:
            self.log.memory.append((time_s, resident))
        sizes = (self.log.peak_rss_mib, resident, _optional(record, "peak_rss_mib", where))
        self.log.peak_rss_mib = max((size for size in sizes if size is not None), default=None)

    def _forget_after(self, step: int) -> None:
        """Drop what a resume repeats: the steps and evaluations after `step`."""
        while self.log.steps and self.log.steps[-1].step > step:
            self.log.steps.pop()
        while self.log.evals and self.log.evals[-1].step > step:
            self.log.evals.pop()


def _number(record: dict[str, Any], key: str, where: str) -> float:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise DataError(f"'{key}' is {value!r:.60}, not a number", where=where, hint="the log is damaged")
    return float(value)


def _whole(record: dict[str, Any], key: str, where: str) -> int:
    value = _number(record, key, where)
    if value != int(value) or value < 0:
        raise DataError(f"'{key}' is {value:g}, not a step number", where=where, hint="the log is damaged")
    return int(value)


def _text(record: dict[str, Any], key: str) -> str | None:
    return None if record.get(key) is None else str(record[key])


def _optional(record: dict[str, Any], key: str, where: str) -> float | None:
    return None if record.get(key) is None else _number(record, key, where)
