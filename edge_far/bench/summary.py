"""Turns measurements into the rows and ratios of the table; knows no engine and starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

from edge_far.bench.cases import PRECISIONS, Case
from edge_far.bench.work.counts import Counts
from edge_far.bench.work.task import Measurement

__all__ = ["MEASURES", "make_ratios", "make_row"]

Row = Mapping[str, Any]

# A row's keys by the word for them in a ratio's name. The first two are of a machine, the others are counts.
MEASURES = {"step": "step_seconds", "peak": "peak_rss_mib", "flops": "flops", "bytes": "bytes_moved"}


def make_row(case: Case, measured: Sequence[Measurement], batch: int, counts: Counts, optimizer: str) -> dict[str, Any]:
    """Return a row: medians over all rounds' steps, the spread as their interquartile range, the highest peak.

    `loss` is that of the last step: rows without dropout and 8-bit weights agree in it, since they do the same work.
    A row of the phase fill has the same of a batch of texts through the frozen blocks; it trains nothing.
    """
    steps = [seconds for one in measured for seconds in one.step_seconds]
    step = median(steps)
    first = measured[0]
    flops = first.flops if counts.flops is None else counts.flops
    predicted = [one.predicted_peak_mib for one in measured if one.predicted_peak_mib is not None]
    return {
        "engine": case.engine,
        "method": case.method.name,
        "rung": case.method.rung,
        "heads": case.method.heads,
        "phase": case.phase,
        "precision": case.precision,
        "embeddings": case.embeddings,
        "attention": case.attention,
        "retention": case.method.retention,
        "optimizer": optimizer,
        "step_seconds": round(step, 5),
        "step_seconds_spread": round(_interquartile_range(steps), 5),
        "step_seconds_rounds": [round(median(one.step_seconds), 5) for one in measured],
        "forward_backward_seconds": round(median(s for one in measured for s in one.forward_backward_seconds), 5),
        "optimizer_seconds": round(median(s for one in measured for s in one.optimizer_seconds), 5),
        "examples_per_second": round(batch / step, 3),
        "peak_rss_mib": round(max(one.peak_rss_mib for one in measured), 1),
        "predicted_peak_mib": round(max(predicted), 1) if predicted else None,
        "flops": None if flops is None else round(flops),
        "bytes_moved": None if counts.bytes_moved is None else round(counts.bytes_moved),
        "trained_parameters": first.trained_parameters,
        "loss": None if first.loss is None else round(first.loss, 6),
        "runtime": first.runtime,
    }


def make_ratios(rows: Sequence[Row], far: str) -> dict[str, float]:
    """Return how many times more the first takes than the second, for the pairs whose rows are there.

    Names are MEASURE_FIRST_over_SECOND, with step (seconds), peak (resident set), flops and bytes (moved). `far` is
    the method that stands for FAR; of the ladder's other rungs, PyTorch and FAR itself are the first. Of PyTorch's two
    attention implementations the one with less of the measure counts.
    """
    selected: dict[str, list[Row]] = {
        "torch_full": _select(rows, "torch", "full", embeddings="train"),
        "torch_full_frozen_embeddings": _select(rows, "torch", "full", embeddings="frozen"),
        "torch_far": _select(rows, "torch", far),
        "ort_training_full": _select(rows, "ort-training", "full"),
        "ort_training_far": _select(rows, "ort-training", far),
        **{
            f"edge_far_full{passes}{tables}": _select(
                rows, "edge-far", "full", precision=precision, embeddings=embeddings
            )
            for passes, precision in (("", "fp32"), ("_compact", "fp32-compact"))
            for tables, embeddings in (("", "train"), ("_frozen_embeddings", "frozen"))
        },
    }
    far_rows = {precision: _select(rows, "edge-far", far, precision=precision) for precision in PRECISIONS}
    pairs = [
        (f"{name}_over_edge_far_{_word(precision)}", first, second)
        for name, first in selected.items()
        for precision, second in far_rows.items()
    ]
    for row in rows:
        if row["phase"] == "step" and (row["rung"] != "far" or row["heads"]):
            rung = f"edge_far_{_word(row['method'])}_{_word(row['precision'])}"
            pairs.append((f"torch_full_over_{rung}", selected["torch_full"], [row]))
            pairs.append((f"edge_far_{_word(far)}_over_{rung}", far_rows[row["precision"]], [row]))
    ratios = {}
    for measure, key in MEASURES.items():
        for name, dividend, divisor in pairs:
            above, below = _least(dividend, key), _least(divisor, key)
            if above is not None and below:
                ratios[f"{measure}_{name}"] = round(above / below, 3)
    return ratios


def _word(name: str) -> str:
    return name.replace("-", "_")


def _select(rows: Sequence[Row], engine: str, method: str, **wanted: str) -> list[Row]:
    wanted |= {"engine": engine, "method": method}
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _least(rows: Sequence[Row], key: str) -> float | None:
    values = [float(row[key]) for row in rows if row[key] is not None]
    return min(values, default=None)


def _interquartile_range(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return upper - lower
