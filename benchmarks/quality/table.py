"""Finished runs as a table: a row a method, a column a data set, means and deviations over seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.quality.methods import METHODS
from edge_far.tasks.figures import FIGURES

__all__ = ["as_table", "best_rate", "read_runs"]

Run = dict[str, Any]


def read_runs(path: Path) -> list[Run]:
    """Return the runs of a file, none where there is no file; a line that was cut short by a kill is passed over."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def best_rate(runs: list[Run]) -> float:
    """Return the learning rate with the best validation score with the first seed."""
    first = runs[0]["seed"]
    return float(max((run for run in runs if run["seed"] == first), key=lambda run: run["valid"])["rate"])


def as_table(runs: list[Run]) -> str:
    """Return Markdown; of each method the runs with its best rate."""
    places = list(dict.fromkeys((run["data"], run["model"], run["pooling"], run["most"]) for run in runs))
    figure = {place: next(iter(run["figures"])) for place in places for run in runs if _place(run) == place}
    heads = [
        f"{data}, {FIGURES[figure[data, model, pooling, most]].title}<br>{model}, {pooling}"
        + (f", {most} examples" if most else "")
        for data, model, pooling, most in places
    ]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(places) + 1) + "|"]
    for method in METHODS:
        cells = []
        for place in places:
            own = [run for run in runs if _place(run) == place and run["method"] == method.name]
            cells.append(_cell(own, figure[place]) if own else "")
        if any(cells):
            lines.append(f"| {method.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _place(run: Run) -> tuple[Any, ...]:
    return run["data"], run["model"], run["pooling"], run["most"]


def _cell(runs: list[Run], figure: str) -> str:
    rate = best_rate(runs)
    values = [100 * run["figures"][figure] for run in runs if run["rate"] == rate]
    mean = f"{statistics.mean(values):.2f}"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return mean + spread + (f" ({rate:g})" if rate else "")
