"""Measures training steps on a bundle, by either of the device's backends, exactly as the trainer runs them.

Where blocks are frozen whole, training is that of the second epoch on: hidden states come from the cache. The peak is
that of both phases. The phase that fills the cache is measured by itself where the task asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_far.bench.work.frozen_texts import FrozenTexts
from edge_far.bench.work.task import CLIP_NORM, LEARNING_RATE, Measurement, Task, batches, micro_batches
from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.bundles.manifest import Prefix
from edge_far.console import Console
from edge_far.device.board.memory import release_free_memory, resident_set, use_one_heap
from edge_far.device.engine.backend import ALONE, Backend, DropoutKey
from edge_far.device.engine.backends import choose_backend
from edge_far.device.optimizers.base import Optimizer, clipped_step
from edge_far.device.optimizers.registry import make_optimizer
from edge_far.device.planning.machine_speed import calibrate
from edge_far.device.planning.plan import Choice, Plan, Shapes, make_plan
from edge_far.device.planning.step_times import StepTimes
from edge_far.device.run.prediction import predict_texts
from edge_far.texts.batches import Batch

__all__ = ["measure_bundle"]

UNLIMITED_MIB = float(1 << 30)
# The micro-batches of the step of a number, of at most so many rows.
Parts = Callable[[int, int], Iterator[Batch]]


@dataclass(frozen=True)
class _Outlook:
    """What is about to run, as `edge-far train` would plan it; the other engines have no plan."""

    plan: Plan | None
    times: StepTimes | None


@dataclass(frozen=True)
class _Seconds:
    """Of each step: forward and backward, and the update."""

    forward_backward: list[float]
    update: list[float]


def measure_bundle(task: Task) -> Measurement:
    """Train `task.bundle`, or fill its cache; the plan is made at the moment when `edge-far train` makes it."""
    use_one_heap()
    assert task.bundle is not None
    bundle = open_bundle(Path(task.bundle))
    manifest = bundle.manifest
    name = "portable" if task.engine == "edge-far" else task.engine
    make_backend, backend_name, learners = choose_backend(name, bundle, task.threads, dropout=task.dropout)
    data = batches(task, manifest.model.vocabulary, len(manifest.labels))
    outlook = _look_ahead(bundle, task) if backend_name == "portable" else _Outlook(None, None)
    activations = None if outlook.plan is None else outlook.plan.parts_mib["activations"]
    if outlook.plan is not None:
        task = replace(task, micro_batch=outlook.plan.micro_batch, variant=outlook.plan.variant_for(task.length))

    def train(parts: Parts) -> Measurement:
        backend = make_backend(learners, activations)
        seconds, loss = _train(task, backend, _optimizer(bundle, backend, task), parts)
        return _measurement(task, bundle, outlook, seconds, loss, _runtime(backend_name))

    if manifest.portable.prefix is None:
        return train(lambda step, rows: micro_batches(data[step], rows))
    width = ALONE if outlook.plan is None else outlook.plan.fill
    with FrozenTexts(bundle, data, task.threads, width, activations or 0.0) as texts:
        filled = [_timed(partial(texts.fill, step)) for step in range(len(data))]
        if task.phase == "fill":
            return _measurement(
                task, bundle, outlook, _Seconds(filled, [0.0] * len(filled)), None, _runtime(backend_name)
            )
        texts.end_fill()
        return train(texts.micro_batches)


def _train(task: Task, backend: Backend, optimizer: Optimizer, parts: Parts) -> tuple[_Seconds, float]:
    """Run all steps; return their times, and the last one's loss."""
    seconds = _Seconds([], [])
    loss = 0.0
    for step in range(task.warmup + task.steps):
        began = time.perf_counter()
        loss = 0.0
        for number, part in enumerate(parts(step, task.micro_batch)):
            key = DropoutKey(task.seed, step, number) if task.dropout else None
            loss += backend.accumulate(part, 1.0 / task.batch, key, task.variant)
        computed = time.perf_counter()
        clipped_step(optimizer, backend.gradients, LEARNING_RATE, CLIP_NORM)
        ended = time.perf_counter()
        seconds.forward_backward.append(computed - began)
        seconds.update.append(ended - computed)
    return seconds, loss


def _measurement(
    task: Task, bundle: Bundle, outlook: _Outlook, seconds: _Seconds, loss: float | None, runtime: str
) -> Measurement:
    """Return what this process measured, up to now, beside what the plan said."""
    plan, is_fill = outlook.plan, task.phase == "fill"
    computed, update = seconds.forward_backward[task.warmup :], seconds.update[task.warmup :]
    return Measurement(
        step_seconds=[a + b for a, b in zip(computed, update, strict=True)],
        forward_backward_seconds=computed,
        optimizer_seconds=update,
        peak_rss_mib=resident_set().peak_mib,
        predicted_peak_mib=None if plan is None else plan.fill_peak_mib if is_fill else plan.predicted_peak_mib,
        trained_parameters=0 if is_fill else bundle.manifest.trained_parameters,
        runtime=runtime,
        loss=loss,
        predicted_step_seconds=_predicted_seconds(task, bundle.manifest.portable.prefix, outlook),
        parts_mib=None if plan is None else dict(plan.parts_mib),
        fill_peak_mib=None if plan is None else plan.fill_peak_mib,
        micro_batch=task.micro_batch,
        variant=task.variant,
    )


def _predicted_seconds(task: Task, prefix: Prefix | None, outlook: _Outlook) -> float | None:
    if outlook.plan is None or outlook.times is None or outlook.plan.step_seconds is None:
        return None
    if prefix is None or task.phase == "step":
        return outlook.plan.step_seconds[task.length]
    return predict_texts(outlook.times, prefix, outlook.plan.fill, task.length, task.batch)


def _look_ahead(bundle: Bundle, task: Task) -> _Outlook:
    """Plan as `edge-far train` would: for the task's budget where it names one, else what the task says."""
    times = None
    if task.predict_time:
        calibration = calibrate(bundle, task.threads, Console(quiet=True), UNLIMITED_MIB)
        if calibration is not None:
            times = StepTimes(bundle.manifest, calibration, dropout=task.dropout, optimizer=task.optimizer)
    release_free_memory()
    choice = Choice({task.length: task.micro_batch}, 0, {task.length: task.variant})
    plan = make_plan(
        bundle.manifest,
        Shapes((task.length,), task.batch),
        task.budget_mib or UNLIMITED_MIB,
        resident_set().now_mib,
        loaded=True,
        keep=choice if task.budget_mib is None else None,
        seconds=times,
        optimizer=task.optimizer,
        threads=task.threads,
    )
    return _Outlook(plan, times)


def _optimizer(bundle: Bundle, backend: Backend, task: Task) -> Optimizer:
    manifest = bundle.manifest
    return make_optimizer(
        task.optimizer,
        backend.parameters,
        weight_decay=manifest.defaults.weight_decay,
        no_decay=frozenset(parameter.name for parameter in manifest.portable.parameters if not parameter.decay),
    )


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _runtime(backend: str) -> str:
    import onnxruntime

    package = "onnxruntime-training" if backend == "ort-training" else "onnxruntime"
    return f"{package} {onnxruntime.__version__}"
