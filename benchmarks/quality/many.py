"""Many runs of the harness at once, for a machine with many cores or a GPU: the same lines, the same file.

    python -m benchmarks.quality.many --plan FILE --out FILE --processes N

A line of the plan holds the arguments of benchmarks.quality.run but --out, for one data set; its methods are begun
in the order given, several at a time. Processes are dealt out to the lines by the work that each holds, and go on to
the next line when theirs is done. Killed and started again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality import run
from benchmarks.quality.methods import AUTO

AUTO_COST = 4  # of runs of another method


@dataclass(frozen=True)
class Line:
    """A line of the plan, the number of the method that is next, and what the line's work is."""

    options: argparse.Namespace
    next: Synchronized[int]

    @property
    def cost(self) -> float:
        """Return its runs times its examples."""
        options = self.options
        examples = options.most or len(next(options.data[0].glob("train.*")).read_bytes().splitlines())
        runs = len(options.rates) + len(options.seeds) - 1
        each = [AUTO_COST * len(options.seeds) if name == AUTO else runs for name in options.methods]
        return float(examples * sum(each))

    def take(self) -> str | None:
        """Return a method that nobody has taken, or None."""
        with self.next.get_lock():
            self.next.value += 1
            taken = self.next.value - 1
        names: list[str] = self.options.methods
        return names[taken] if taken < len(names) else None


def main() -> int:
    """Run the plan; the number of methods that failed is told at the end, and the exit code is 1 for any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--processes", type=int, required=True, metavar="N")
    asked = parser.parse_args()
    context = multiprocessing.get_context("fork")
    lines = [
        Line(run.parse([*shlex.split(text), "--out", str(asked.out)]), context.Value("i", 0))
        for text in asked.plan.read_text().splitlines()
        if text and not text.startswith("#")
    ]
    failed = context.Value("i", 0)
    workers = [
        context.Process(target=_work, args=(lines[first:] + lines[:first], failed))
        for first in dealt([line.cost for line in lines], asked.processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    died = sum(worker.exitcode != 0 for worker in workers)
    print(f"{failed.value} methods failed, {died} of {len(workers)} processes died", file=sys.stderr)
    return int(failed.value + died > 0)


def dealt(costs: list[float], processes: int) -> list[int]:
    """Return the line that each process begins with: as many to a line as its share of the costs is."""
    found, total = [], sum(costs)
    for number in range(processes):
        place = (number + 0.5) / processes * total
        found.append(next(n for n in range(len(costs)) if place < sum(costs[: n + 1]) or n + 1 == len(costs)))
    return found


def _work(lines: list[Line], failed: Any) -> None:
    for line in lines:
        bench = None
        while (name := line.take()) is not None:
            try:
                bench = bench or run.bench_of(line.options, line.options.data[0])
                run.run_methods(bench, line.options, [name])
            except (Exception, SystemExit):  # the others go on
                traceback.print_exc()
                with failed.get_lock():
                    failed.value += 1


if __name__ == "__main__":
    sys.exit(main())
