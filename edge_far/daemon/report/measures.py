"""The figures of a status document as metrics."""

from __future__ import annotations

from typing import Any

from edge_far import __version__
from edge_far.daemon.report.metrics import Metric
from edge_far.device.board.sensors import Readings
from edge_far.profile.document import Profile
from edge_far.tasks.figures import score_name

__all__ = ["metrics_of"]

MIB = 1 << 20


def metrics_of(document: dict[str, Any], profile: Profile, readings: Readings) -> list[Metric]:
    """Return every metric that is known."""
    model, last, examples = document["model"], document["last_cycle"], document["examples"]
    release = model["release"] if model else "none"
    found = [
        Metric("info", 1, {"version": __version__, "profile": profile.name, "release": release}),
        Metric("state", 1, {"state": document["state"]}),
        Metric("last_look_timestamp_seconds", document["checked_s"]),
        Metric("memory_budget_bytes", profile.memory.budget_mib * MIB),
    ]
    if examples:
        found += [
            Metric("examples", examples["examples"]),
            Metric("new_examples", examples["new_examples"]),
            Metric("held_out_examples", examples["held_out"]),
            Metric("quarantined_lines", examples["quarantined"]),
            Metric("set_aside_examples", examples["set_aside"]),
        ]
    found += [Metric("cycles_total", count, {"outcome": name}) for name, count in document["cycles"].items()]
    found += [Metric("condition_ok", int(c["ok"]), {"condition": c["name"]}) for c in document["conditions"]]
    if readings.temperature:
        found.append(Metric("temperature_celsius", readings.temperature.celsius))
    if model:
        found.append(Metric("last_release_timestamp_seconds", model["made_s"]))
    return found + _last_cycle(last or {})


def _last_cycle(last: dict[str, Any]) -> list[Metric]:
    found = [Metric("last_cycle_timestamp_seconds", last["updated_s"])] if last else []
    decision = last.get("decision") or {}
    for name, kind, reference in (("held_out", "device", "current"), ("base", "base", "factory")):
        if figures := decision.get(kind):
            score = score_name(figures)
            is_share = score == "accuracy"
            for model, which in (("candidate", "candidate"), ("reference", reference)):
                told = {"model": which} if is_share else {"model": which, "score": score}
                found.append(
                    Metric(f"{name}_accuracy_ratio" if is_share else f"{name}_score", figures[f"{model}_{score}"], told)
                )
    if training := last.get("training"):
        found += [
            Metric("training_seconds", training["seconds"]),
            Metric("training_paused_seconds", last.get("paused_s") or 0.0),
            Metric("training_peak_memory_bytes", training["peak_rss_mib"] * MIB),
        ]
    return found
