"""Figures for Prometheus as a text file, which the node exporter's textfile collector picks up.

Nothing listens on the network. The file is replaced in one step, so a reader never sees half of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_far.errors import StorageError
from edge_far.storage import storage_error, write_atomically

__all__ = ["CATALOGUE", "Metric", "exposition", "write_metrics"]

PREFIX = "edge_far_"
NAME = re.compile(r"[a-z][a-z0-9_]*")
METRICS_FILE_MODE = 0o644

# Every figure there is: name without prefix -> kind and help. deploy/grafana-dashboard.json shows them.
CATALOGUE: dict[str, tuple[Literal["gauge", "counter"], str]] = {
    "info": ("gauge", "Version, profile and current release as labels; always 1."),
    "state": ("gauge", "What edge-far status finds, as a label; always 1."),
    "last_look_timestamp_seconds": ("gauge", "When the daemon looked last; an old one is a daemon that does not run."),
    "examples": ("gauge", "Labelled examples in the store."),
    "new_examples": ("gauge", "Examples that arrived or were corrected since the last finished cycle."),
    "held_out_examples": ("gauge", "Examples that are held out for the gate."),
    "quarantined_lines": ("gauge", "Lines in quarantine."),
    "set_aside_examples": ("gauge", "Examples set aside because training on them failed."),
    "cycles_total": ("counter", "Finished cycles by outcome."),
    "last_cycle_timestamp_seconds": ("gauge", "When the last cycle ended."),
    "last_release_timestamp_seconds": ("gauge", "When the current release was made."),
    "condition_ok": ("gauge", "Whether a condition for training holds, by condition."),
    "held_out_accuracy_ratio": ("gauge", "Accuracy on the held-out examples, by model."),
    "base_accuracy_ratio": ("gauge", "Accuracy on the replay set, by model."),
    "held_out_score": (
        "gauge",
        "Where no answer is simply right: the gate's score on the held-out examples, by model.",
    ),
    "base_score": ("gauge", "The same on the replay set, by model."),
    "training_seconds": ("gauge", "Duration of the last training."),
    "training_paused_seconds": ("gauge", "Time of it spent in pauses for heat or memory."),
    "training_peak_memory_bytes": ("gauge", "Peak resident set of the last training."),
    "memory_budget_bytes": ("gauge", "The profile's memory budget."),
    "temperature_celsius": ("gauge", "The hottest thermal zone."),
}


@dataclass(frozen=True)
class Metric:
    """One figure of the CATALOGUE; `name` without the prefix `edge_far_`, with its unit at the end."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def exposition(metrics: Iterable[Metric]) -> str:
    """Return the metrics in Prometheus' text format; ValueError for a name that is not ours."""
    families: dict[str, list[Metric]] = {}
    for metric in metrics:
        if metric.name not in CATALOGUE or not all(NAME.fullmatch(name) for name in metric.labels):
            raise ValueError(f"not a metric's name or label: {metric.name} {dict(metric.labels)}")
        families.setdefault(metric.name, []).append(metric)
    lines = []
    for name, family in families.items():
        kind, help_text = CATALOGUE[name]
        lines += [f"# HELP {PREFIX}{name} {_escaped(help_text)}", f"# TYPE {PREFIX}{name} {kind}"]
        lines += [f"{PREFIX}{name}{_labels(metric.labels)} {_number(metric.value)}" for metric in family]
    return "".join(f"{line}\n" for line in lines)


def write_metrics(path: Path, metrics: Iterable[Metric]) -> None:
    """Replace the file in one step, readable for all; raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = exposition(metrics)
        write_atomically(path, text.encode("utf-8"))
        path.chmod(METRICS_FILE_MODE)
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value, quote=True)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
