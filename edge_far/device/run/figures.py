"""The figures that a run tells: of a step in the log and on the console, and of the whole run in its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from edge_far.device.board.memory import ResidentSet
from edge_far.device.planning.plan import Plan
from edge_far.device.run.prediction import Prediction
from edge_far.device.run.training_state import Amount, Step, TrainingState
from edge_far.json_file import Count, Damaged, Within, decode, decode_keys
from edge_far.tasks.figures import FIGURES, headline_of

__all__ = ["check_metrics", "check_result", "progress_text", "result_figures", "step_figures"]

# What a reader of result.json, of its plan and of metrics.json counts on; they may hold more.
METRICS = {"step": Count, "examples": Count, "loss": Amount}
PLAN = {"micro_batch": Count, "accumulation": Count, "longest": Count}
RESULT = {
    "steps": Count,
    "seconds": Amount,
    "step_seconds": Amount,
    "predicted": dict[str, Amount] | None,
    "examples_per_second": Amount,
    "final_loss": Amount | None,
    "eval": dict[str, Any] | None,
    "peak_rss_mib": Amount,
    "budget_mib": Amount,
    "plan": dict[str, Any],
    "optimizer": str,
    "trained_parameters": Count,
    "backend": str,
    "learners_sha256": str,
}


def check_result(document: Mapping[str, Any]) -> None:
    """Raise Damaged where a run's result is not one of ours."""
    decode_keys(RESULT, document)
    decode_keys(PLAN, document["plan"], "plan")
    if document["predicted"] is not None:
        decode(Amount, document["predicted"].get("seconds"), "predicted.seconds")
    if document["eval"] is not None:
        check_metrics(document["eval"], "eval")


def check_metrics(document: Mapping[str, Any], where: str = "") -> None:
    """Raise Damaged where the metrics of the best evaluation are not ours: a headline, and figures within bounds."""
    bounds = {name: Annotated[float, Within(f.low, f.high)] for name, f in FIGURES.items() if name in document}
    decode_keys(METRICS | bounds, document, where)
    if headline_of(document) is None:
        raise Damaged(f"'{where}' holds no figure" if where else "holds no figure")


def step_figures(step: Step, memory: ResidentSet, *, number: int, epoch: int, learning_rate: float) -> dict[str, Any]:
    """Return what the log keeps of a step; `number` counts steps and `epoch` epochs from 1."""
    return {
        "step": number,
        "epoch": epoch,
        "loss": round(step.loss, 6),
        "learning_rate": learning_rate,
        "grad_norm": round(step.norm, 6),
        "examples": step.examples,
        "tokens": step.tokens,
        "seconds": round(step.seconds, 4),
        "rss_mib": round(memory.now_mib, 1),
        "peak_rss_mib": round(memory.peak_mib, 1),
    }


def progress_text(state: TrainingState, memory: ResidentSet, budget_mib: float) -> str:
    """Return what stands beside the progress bar."""
    return (
        f"loss {state.smoothed_loss:.4f}  {_rate(state):.1f} examples/s  "
        f"peak {memory.peak_mib:.0f} of {budget_mib:.0f} MiB"
    )


def result_figures(
    state: TrainingState,
    plan: Plan,
    learners: Mapping[str, np.ndarray],
    prediction: Prediction | None,
    *,
    metrics: dict[str, Any] | None,
    peak_rss_mib: float,
    backend: str,
    first_step: int,
) -> dict[str, Any]:
    """Return the figures of a run that has ended.

    `metrics` are those of the best evaluation, where there was one; `first_step` is the step from which the process
    that ended it began.
    """
    return {
        "steps": state.step,
        "seconds": round(state.seconds, 3),
        "step_seconds": round(state.step_seconds / max(state.step, 1), 4),
        "predicted": _predicted(prediction),
        "examples_per_second": round(_rate(state), 2),
        "final_loss": None if state.smoothed_loss is None else round(state.smoothed_loss, 6),
        "eval": metrics,
        "peak_rss_mib": round(max(state.peak_rss_mib, peak_rss_mib), 1),
        "budget_mib": plan.budget_mib,
        "plan": plan.to_json(),
        "optimizer": state.optimizer,
        "trained_parameters": sum(array.size for array in learners.values()),
        "backend": backend,
        "resumed_from_step": first_step or None,
        "step_downs": state.step_downs,
    }


def _rate(state: TrainingState) -> float:
    """Return examples a second since the start."""
    return state.examples / max(state.seconds, 1e-9)


def _predicted(prediction: Prediction | None) -> dict[str, float] | None:
    if prediction is None:
        return None
    return {"step_seconds": round(prediction.step_seconds, 4), "seconds": round(prediction.seconds, 3)}
