"""Runs every row in fresh processes, in rounds: forth, back, forth, so that a drifting machine hits all rows alike."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_far.bench.cases import Case
from edge_far.bench.work.task import Measurement, Task
from edge_far.console import Console
from edge_far.process.children import child_environment, module_command

__all__ = ["Planned", "Results", "run_rounds", "run_task"]


@dataclass(frozen=True)
class Planned:
    """A row that can be measured: what it is, the interpreter, the task."""

    case: Case
    python: Path
    task: Task


@dataclass
class Results:
    """The measurements of each row, one a round, and the reasons of rows that failed."""

    measured: dict[Case, list[Measurement]] = field(default_factory=dict)
    failed: dict[Case, str] = field(default_factory=dict)


def run_rounds(planned: Sequence[Planned], rounds: int, console: Console) -> Results:
    """Measure every row once a round; a row that fails is left out of later rounds and of the table."""
    results = Results()
    done = 0
    with console.progress(rounds * len(planned), "bench") as progress:
        for number in range(rounds):
            for row in planned if number % 2 == 0 else reversed(planned):
                done += 1
                if row.case in results.failed:
                    continue
                found = run_task(row.python, row.task)
                if isinstance(found, str):
                    console.warn(f"{row.case.title}: {found}")
                    results.failed[row.case] = found
                    results.measured.pop(row.case, None)
                    continue
                results.measured.setdefault(row.case, []).append(found)
                middle = sorted(found.step_seconds)[len(found.step_seconds) // 2]
                progress.update(done, f"{row.case.title}: {middle:.3f} s a step, peak {found.peak_rss_mib:.0f} MiB")
    return results


def run_task(python: Path, task: Task) -> Measurement | str:
    """Measure one row in a fresh process; return the reason in one line where that fails."""
    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as folder:
        told, answered = Path(folder, "task.json"), Path(folder, "result.json")
        task.write(told)
        command = [*module_command("edge_far.bench.child", python), str(told), str(answered)]
        done = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=_environment(task.threads),
            check=False,
        )
        if done.returncode < 0:
            return f"ended by signal {-done.returncode}{' (out of memory?)' if done.returncode == -9 else ''}"
        if done.returncode or not answered.is_file():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else f"exit code {done.returncode}"
        return Measurement.read(answered)


def _environment(threads: int) -> Mapping[str, str]:
    """Give every library with threads of its own the same number of them."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**child_environment(), **{name: str(threads) for name in names}}
