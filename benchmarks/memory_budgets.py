"""Does a rung of the ladder train within its budget, the fill of its cache included, and what does that cost in time?

    python benchmarks/memory_budgets.py [--threads 2] [--steps 5] [--rounds 2] [--only distilbert] [--out FILE]

Run with the workstation's environment. Batch 16 x 128 tokens, AdamW in float32, int8, dropout off; random weights. Each
row is a fresh process of the device's environment that plans for its budget as `edge-far train` does (the machine's
speed is measured before), fills the cache, trains, and reads VmHWM at the end: the peak is that of both phases. The row
without a budget is the reference of the others' times; the aim is 1.3 x. Prints Markdown: the table, and what each
predicted peak consists of. --out writes the same as JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.bench.cases import method_named
from edge_far.bench.environments import describe_machine, python_or_exit
from edge_far.bench.run import run_task
from edge_far.bench.work.bundles import compile_random
from edge_far.bench.work.task import Measurement, Task
from edge_far.bundles.bundle import Bundle
from edge_far.console import Console
from edge_far.storage import write_json

BATCH, LENGTH, WARMUP = 16, 128, 2
NO_BUDGET = float(1 << 30)
SLOWEST = 1.3


@dataclass(frozen=True)
class Subject:
    """What is trained, and the budgets in MiB that it is to fit."""

    geometry: str
    method: str
    pooling: str
    budgets: tuple[float, ...]


SUBJECTS = (
    Subject("distilbert", "top-2-heads", "cls", (256.0, 200.0)),
    Subject("distilbert", "far-10-heads", "cls", (400.0,)),
    Subject("minilm", "top-2-heads", "mean", (150.0, 128.0)),
)


def main() -> None:
    """Compile, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", metavar="GEOMETRY", default=sorted({each.geometry for each in SUBJECTS}))
    parser.add_argument("--device-python", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    python = python_or_exit("edge-far", options.device_python)
    rows: list[dict[str, Any]] = []
    document = {"machine": describe_machine(), "threads": options.threads, "rows": rows}
    for subject in (each for each in SUBJECTS if each.geometry in options.only):
        for row in measure(subject, python, options):
            rows.append(row)
            Console().info(f"{subject.geometry} {subject.method}: {_outcome(row)}")
            if options.out:
                write_json(options.out, document)
    print(as_markdown(document))


def measure(subject: Subject, python: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compile a bundle and yield its rows, the one without a budget first."""
    method = method_named(subject.method, 0.1)
    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as folder:
        os.environ["XDG_CACHE_HOME"] = folder  # the machine's speed is measured anew
        bundle = compile_random(
            subject.geometry,
            Path(folder, "bundle"),
            retention=method.retention,
            precision="int8",
            embeddings="frozen",
            dropout=False,
            with_ort=False,
            rung=method.rung,
            heads=method.heads,
            pooling=subject.pooling,
        )
        budgets = (NO_BUDGET, *subject.budgets)
        found: dict[float, list[Measurement]] = {budget: [] for budget in budgets}
        refused: dict[float, str] = {}
        for number in range(options.rounds):
            for budget in budgets if number % 2 == 0 else reversed(budgets):
                measured = run_task(python, _task(subject, bundle, budget, options))
                if isinstance(measured, str):
                    refused[budget] = measured
                else:
                    found[budget].append(measured)
        if not found[NO_BUDGET]:
            sys.exit(f"{subject.geometry} {subject.method}: {refused[NO_BUDGET]}")
        free = _step(found[NO_BUDGET])
        for budget in budgets:
            yield _row(subject, budget, found[budget], free, refused.get(budget))


def _task(subject: Subject, bundle: Bundle, budget: float, options: argparse.Namespace) -> Task:
    selection = bundle.manifest.selection
    return Task(
        engine="edge-far",
        model=subject.geometry,
        bundle=str(bundle.root),
        retention=selection.retention,
        embeddings=selection.embeddings,
        attention=None,
        batch=BATCH,
        micro_batch=BATCH,
        length=LENGTH,
        threads=options.threads,
        steps=options.steps,
        warmup=WARMUP,
        dropout=False,
        seed=0,
        optimizer="adamw",
        budget_mib=budget,
        predict_time=True,
    )


def _row(
    subject: Subject, budget: float, found: Sequence[Measurement], free: float, refused: str | None
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "geometry": subject.geometry,
        "method": subject.method,
        "pooling": subject.pooling,
        "budget_mib": None if budget == NO_BUDGET else budget,
    }
    if refused is not None:
        return {**row, "refused": refused}
    first = found[0]
    return {
        **row,
        "micro_batch": first.micro_batch,
        "step_graph": first.variant,
        "step_seconds": round(_step(found), 4),
        "of_no_budget": round(_step(found) / free, 3),
        "peak_rss_mib": round(max(each.peak_rss_mib for each in found), 1),
        "predicted_peak_mib": round(first.predicted_peak_mib or 0.0, 1),
        "predicted_fill_peak_mib": None if first.fill_peak_mib is None else round(first.fill_peak_mib, 1),
        "parts_mib": {name: round(size, 1) for name, size in (first.parts_mib or {}).items()},
        "runtime": first.runtime,
    }


def _step(found: Sequence[Measurement]) -> float:
    return statistics.median(seconds for each in found for seconds in each.step_seconds)


def as_markdown(document: Mapping[str, Any]) -> str:
    """Return the table, and what each peak consists of."""
    machine = document["machine"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, load average before the run {machine['load_average']}, "
        f"{machine['date']}; {document['threads']} threads; batch {BATCH} x {LENGTH}, AdamW, int8",
        "",
        "| geometry | method | budget, MiB | plan | step, s | of no budget | peak, MiB | predicted | of the fill | |",
        "|---|---|---:|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in document["rows"]:
        start = f"| {row['geometry']}, {row['pooling']} | {row['method']} | {_number(row['budget_mib'])} |"
        if "refused" in row:
            lines.append(f"{start} | | | | | | {row['refused']} |")
            continue
        plan = f"{BATCH} by {row['micro_batch']}, `{row['step_graph']}`"
        times = f"{row['step_seconds']:.3f} | {row['of_no_budget']:.2f}"
        peaks = (
            f"{row['peak_rss_mib']:.0f} | {row['predicted_peak_mib']:.0f} | {_number(row['predicted_fill_peak_mib'])}"
        )
        lines.append(f"{start} {plan} | {times} | {peaks} | {_outcome(row)} |")
    lines += ["", "What the predicted peaks of training consist of, MiB:", ""]
    for row in (row for row in document["rows"] if "refused" not in row):
        parts = ", ".join(f"{name} {size:.0f}" for name, size in row["parts_mib"].items())
        lines.append(f"- {row['geometry']} {row['method']}, budget {_number(row['budget_mib'])}: {parts}")
    return "\n".join(lines)


def _outcome(row: Mapping[str, Any]) -> str:
    """Say whether a row keeps its budget and its time."""
    if "refused" in row:
        return str(row["refused"])
    if row["budget_mib"] is None:
        return "the reference"
    kept = row["peak_rss_mib"] <= row["budget_mib"] and row["of_no_budget"] <= SLOWEST
    return "met" if kept else "missed"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    main()
