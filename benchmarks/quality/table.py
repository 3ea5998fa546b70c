"""Finished runs as a table: a row a method, a column a data set, means and deviations over seeds."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.quality.methods import AUTO, METHODS
from edge_far.tasks.figures import FIGURES

__all__ = ["as_table", "best_rate", "differences", "read_runs"]

CONFIDENCE = 0.95

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
    """Return Markdown; of each method the runs with its best rate, and what it trains on the first data set."""
    places = list(dict.fromkeys((run["data"], run["model"], run["pooling"], run["most"]) for run in runs))
    figure = {place: next(iter(run["figures"])) for place in places for run in runs if _place(run) == place}
    heads = [
        f"{data}, {FIGURES[figure[data, model, pooling, most]].title}<br>{model}, {pooling}"
        + (f", {most} examples" if most else "")
        for data, model, pooling, most in places
    ]
    lines = ["| | trained | " + " | ".join(heads) + " |", "|---|---:" + "|---" * len(places) + "|"]
    for method in METHODS:
        cells = []
        for place in places:
            own = [run for run in runs if _place(run) == place and run["method"] == method.name]
            cells.append(_cell(own, figure[place]) if own else "")
        if any(cells):
            trained = [run["trained"] for run in runs if run["method"] == method.name and "trained" in run]
            size = f"{trained[0]:,}" if trained and method.name != AUTO else ""
            lines.append(f"| {method.name} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(runs: list[Run], reference: str) -> str:
    """Return Markdown: how much better each method is than the reference, with a 95 % interval by the seeds.

    The interval is Student's, of the differences seed by seed: a seed draws head and order alike for all methods. It
    says how sure the seeds are, not how other test texts would differ.
    """
    lines = [f"| less {reference} | difference | 95 % interval | seeds |", "|---|---:|---:|---:|"]
    for place in dict.fromkeys(map(_place, runs)):
        own = [run for run in runs if _place(run) == place]
        figure = next(iter(own[0]["figures"]))
        base = _by_seed([run for run in own if run["method"] == reference], figure)
        for method in METHODS:
            found = _by_seed([run for run in own if run["method"] == method.name], figure)
            gains = [100 * (found[seed] - base[seed]) for seed in sorted(found.keys() & base.keys())]
            if method.name == reference or len(gains) < 2:
                continue
            mean, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
            reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(gains) - 1)) * error
            name = f"{place[0]}: {method.name}"
            lines.append(f"| {name} | {mean:+.2f} | {mean - reach:+.2f} to {mean + reach:+.2f} | {len(gains)} |")
    return "\n".join(lines)


def _by_seed(runs: list[Run], figure: str) -> dict[int, float]:
    """Return the figure by seed, at the best rate."""
    rate = best_rate(runs) if runs else 0.0
    return {run["seed"]: run["figures"][figure] for run in runs if run["rate"] == rate}


def _place(run: Run) -> tuple[Any, ...]:
    return run["data"], run["model"], run["pooling"], run["most"]


def _cell(runs: list[Run], figure: str) -> str:
    rate = best_rate(runs)
    values = [100 * run["figures"][figure] for run in runs if run["rate"] == rate]
    mean = f"{statistics.mean(values):.2f}"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return mean + spread + (f" ({rate:g})" if rate else "")
