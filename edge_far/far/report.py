"""The report of a selection: what was measured, what was chosen, and how reliable the choice is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.far.prime import PrimingResult
from edge_far.far.select import Selection
from edge_far.storage import write_atomically

__all__ = ["REPORT_VERSION", "selection_report", "write_selection_report"]

REPORT_VERSION = 2
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def selection_report(selection: Selection, priming: PrimingResult | None = None) -> dict[str, Any]:
    """Return the report as a JSON document.

    Keys: `version, method, retention, priming, blocks, attention`. `priming` is null or `{steps, seconds, first_loss,
    last_loss, split_half_overlap, chance}`. A block is `{block, learners, count, metric, quantiles,
    threshold, captured}`: the chosen indices, their number, the metric of every node (7 significant digits),
    its quantiles, the smallest metric chosen, and the learners' share of the block's whole metric; null where
    nothing was measured or chosen. `attention` is null where attention learns whole, else the same of its heads:
    `{retention, split_half_overlap, chance, blocks}`.
    """
    return {
        "version": REPORT_VERSION,
        "method": selection.method,
        "retention": selection.retention,
        "priming": None if priming is None else _priming(priming),
        "blocks": _blocks(selection),
        "attention": None if selection.heads is None else _attention(selection.heads, priming),
    }


def write_selection_report(path: Path, selection: Selection, priming: PrimingResult | None = None) -> dict[str, Any]:
    """Write the report to `path` as JSON, whole or not at all, and return it. Raises StorageError."""
    report = selection_report(selection, priming)
    write_atomically(path, json.dumps(report, separators=(",", ":")).encode())
    return report


def _priming(priming: PrimingResult) -> dict[str, Any]:
    return {
        "steps": priming.steps,
        "seconds": round(priming.seconds, 3),
        "first_loss": priming.first_loss,
        "last_loss": priming.last_loss,
        "split_half_overlap": priming.overlap,
        "chance": priming.chance,
    }


def _attention(heads: Selection, priming: PrimingResult | None) -> dict[str, Any]:
    measured = None if priming is None else priming.heads
    return {
        "retention": heads.retention,
        "split_half_overlap": None if measured is None else measured.overlap,
        "chance": None if measured is None else measured.chance,
        "blocks": _blocks(heads),
    }


def _blocks(selection: Selection) -> list[dict[str, Any]]:
    pairs = zip(selection.learners, selection.metrics, strict=True)
    return [_block(index, learners, metric) for index, (learners, metric) in enumerate(pairs)]


def _block(index: int, learners: np.ndarray, metric: np.ndarray | None) -> dict[str, Any]:
    chosen = None if metric is None else metric[learners]
    total = 0.0 if metric is None else float(metric.sum())
    return {
        "block": index,
        "count": len(learners),
        "learners": learners.tolist(),
        "metric": None if metric is None else [_rounded(value) for value in metric],
        "quantiles": None if metric is None else {f"{q:g}": _rounded(np.quantile(metric, q)) for q in QUANTILES},
        "threshold": None if chosen is None or not len(chosen) else _rounded(chosen.min()),
        "captured": None if chosen is None or not total else _rounded(chosen.sum() / total),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")
