"""Measures training steps on a bundle, by either of the device's backends, exactly as the trainer runs them."""

from __future__ import annotations

import time
from pathlib import Path

from edge_far.bench.work.task import CLIP_NORM, LEARNING_RATE, Measurement, Task, batches, micro_batches
from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.console import Console
from edge_far.device.board.memory import release_free_memory, resident_set, use_one_heap
from edge_far.device.engine.backend import DropoutKey
from edge_far.device.engine.backends import choose_backend
from edge_far.device.optimizers.base import clipped_step
from edge_far.device.optimizers.registry import make_optimizer
from edge_far.device.planning.machine_speed import calibrate
from edge_far.device.planning.plan import Choice, Plan, Shapes, make_plan
from edge_far.device.planning.step_times import StepTimes

__all__ = ["measure_bundle"]

UNLIMITED_MIB = float(1 << 30)


def measure_bundle(task: Task) -> Measurement:
    """Train `task.bundle`; the peak that the plan predicts is made at the moment when `edge-far train` makes it."""
    use_one_heap()
    assert task.bundle is not None
    bundle = open_bundle(Path(task.bundle))
    manifest = bundle.manifest
    name = "portable" if task.engine == "edge-far" else task.engine
    make_backend, backend_name, learners = choose_backend(name, bundle, task.threads, dropout=task.dropout)
    data = batches(task, manifest.model.vocabulary, len(manifest.labels))
    plan = _plan(bundle, task) if backend_name == "portable" else None
    backend = make_backend(learners, None if plan is None else plan.parts_mib["activations"])
    optimizer = make_optimizer(
        task.optimizer,
        backend.parameters,
        weight_decay=manifest.defaults.weight_decay,
        no_decay=frozenset(parameter.name for parameter in manifest.portable.parameters if not parameter.decay),
    )
    forward_backward, update = [], []
    loss = 0.0
    for step, batch in enumerate(data):
        began = time.perf_counter()
        loss = 0.0
        for number, part in enumerate(micro_batches(batch, task.micro_batch)):
            key = DropoutKey(task.seed, step, number) if task.dropout else None
            loss += backend.accumulate(part, 1.0 / task.batch, key, task.variant)
        computed = time.perf_counter()
        clipped_step(optimizer, backend.gradients, LEARNING_RATE, CLIP_NORM)
        ended = time.perf_counter()
        forward_backward.append(computed - began)
        update.append(ended - computed)
    return Measurement(
        step_seconds=[a + b for a, b in zip(forward_backward, update, strict=True)][task.warmup :],
        forward_backward_seconds=forward_backward[task.warmup :],
        optimizer_seconds=update[task.warmup :],
        peak_rss_mib=resident_set().peak_mib,
        predicted_peak_mib=None if plan is None else plan.predicted_peak_mib,
        trained_parameters=manifest.trained_parameters,
        runtime=_runtime(backend_name),
        loss=loss,
        predicted_step_seconds=None if plan is None or plan.step_seconds is None else plan.step_seconds[task.length],
    )


def _plan(bundle: Bundle, task: Task) -> Plan:
    """Describe what is about to run, as `edge-far train` would."""
    times = None
    if task.predict_time:
        calibration = calibrate(bundle, task.threads, Console(quiet=True), UNLIMITED_MIB)
        if calibration is not None:
            times = StepTimes(bundle.manifest, calibration, dropout=task.dropout, optimizer=task.optimizer)
    release_free_memory()
    choice = Choice({task.length: task.micro_batch}, 0, {task.length: task.variant})
    shapes = Shapes((task.length,), task.batch)
    now = resident_set().now_mib
    return make_plan(
        bundle.manifest, shapes, UNLIMITED_MIB, now, loaded=True, keep=choice, seconds=times, optimizer=task.optimizer
    )


def _runtime(backend: str) -> str:
    import onnxruntime

    package = "onnxruntime-training" if backend == "ort-training" else "onnxruntime"
    return f"{package} {onnxruntime.__version__}"
