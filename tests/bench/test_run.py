"""Fresh processes in rounds; a row that fails is named and ends nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edge_far.bench import run
from edge_far.bench.cases import Case, method_named
from edge_far.bench.run import Planned, run_rounds, run_task
from edge_far.bench.work.task import Measurement, Task
from edge_far.console import Console
from tests.bench.work.test_task import TASK

CASES = [Case("edge-far", method_named(name, 0.1), "int8", "frozen") for name in ("full", "far", "frozen-ffn")]


def planned() -> list[Planned]:
    return [Planned(case, Path("python"), replace(TASK, retention=case.method.retention)) for case in CASES]


def test_rounds_go_forth_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[float] = []

    def measure(_: Path, task: Task) -> Measurement:
        order.append(task.retention)
        return Measurement([1.0], [0.9], [0.1], 100.0, None, 1, "engine", 0.5)

    monkeypatch.setattr(run, "run_task", measure)
    results = run_rounds(planned(), 3, Console(quiet=True))
    assert order == [1.0, 0.1, 0.0, 0.0, 0.1, 1.0, 1.0, 0.1, 0.0]
    assert [len(results.measured[case]) for case in CASES] == [3, 3, 3] and not results.failed


def test_a_row_that_fails_once_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[float] = []

    def measure(_: Path, task: Task) -> Measurement | str:
        calls.append(task.retention)
        if task.retention == 0.1 and len(calls) > 3:
            return "out of memory"
        return Measurement([1.0], [0.9], [0.1], 100.0, None, 1, "engine", 0.5)

    monkeypatch.setattr(run, "run_task", measure)
    results = run_rounds(planned(), 3, Console(quiet=True))
    assert results.failed == {CASES[1]: "out of memory"} and CASES[1] not in results.measured
    assert calls.count(0.1) == 2
    assert "far-10 int8: out of memory" in capsys.readouterr().err


def test_a_process_that_cannot_measure_says_why(tmp_path: Path) -> None:
    reason = run_task(Path(sys.executable), replace(TASK, bundle=str(tmp_path)))
    assert isinstance(reason, str) and "manifest.json is missing" in reason


def test_a_killed_process_is_recognised(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    assert run_task(script, TASK) == "ended by signal 9 (out of memory?)"
