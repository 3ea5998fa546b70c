"""The phases of one training run in their order: read the data, choose the engine, plan, predict, train.

Read `train` first. `edge-far train` (train.py) imports this once its options and files are known to be good, because
what is imported here takes a second or more.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bundles.arrays import read_arrays_into, refuse_non_numbers
from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Prefix
from edge_far.commands.common import budget_of, bundle_task, encode_file, step_times
from edge_far.commands.device.frozen_phase import cache_file, fill, open_hidden, room_for
from edge_far.console import Console
from edge_far.device.board.memory import cgroup_limit_mib, release_free_memory, resident_set, use_one_heap
from edge_far.device.board.pressure import MemoryWatch
from edge_far.device.engine.backends import BackendFactory, choose_backend
from edge_far.device.new_rows import fit_new_rows
from edge_far.device.optimizers.proximal import Proximal
from edge_far.device.planning.plan import Plan, make_plan, shapes_of
from edge_far.device.planning.step_times import StepTimes
from edge_far.device.run.checkpoint import RunDirectory
from edge_far.device.run.control import Control
from edge_far.device.run.prediction import Prediction, predict_run
from edge_far.device.run.runlog import RunLog
from edge_far.device.run.settings import RunRecord, store_record
from edge_far.device.run.signals import StopRequest
from edge_far.device.run.trainer import TrainData, Trainer
from edge_far.errors import Deferred
from edge_far.profile.document import Profile
from edge_far.texts.encode import Encoded

__all__ = ["Job", "train"]


@dataclass(frozen=True)
class Job:
    """What was asked for; `known` is the record of the run that is continued, None for a new one."""

    options: argparse.Namespace
    console: Console
    bundle: Bundle
    profile: Profile
    directory: RunDirectory
    wanted: RunRecord
    known: RunRecord | None


@dataclass(frozen=True)
class _Engine:
    """How to make the engine, and the learners it begins with."""

    make: BackendFactory
    learners: dict[str, np.ndarray]
    proximal: Proximal | None  # made before the plan, which counts what is resident


@dataclass(frozen=True)
class _Outlook:
    """What the run may use and how it will, and what it will take where that could be predicted."""

    budget_mib: float
    plan: Plan
    prediction: Prediction | None


def train(job: Job, stop: StopRequest) -> dict[str, Any]:
    """Return the result of the run; raises Interrupted or Deferred after a checkpoint when asked to stop."""
    use_one_heap()
    data = _read_data(job)
    engine = _choose_engine(job)
    budget_mib = _budget(job)
    times = _measure_machine(job, budget_mib)
    prefix = job.bundle.manifest.portable.prefix
    cached = prefix is None or (cache_file(job.options) is not None and room_for(data, prefix, job.profile))
    plan = _make_plan(job, data, budget_mib, times, cached=cached)
    if prefix is not None:
        data, stored = _compute_frozen(job, data, prefix, plan, stop)
        if cached and not stored:
            job.console.warn(
                f"{cache_file(job.options)}: not all activations could be kept within storage.cache_mib "
                f"({job.profile.storage.cache_mib}): some are computed again in every step"
            )
            plan = _make_plan(job, data, budget_mib, times, cached=False)
    prediction = None if times is None else predict_run(times, plan, job.wanted.settings, data.train, data.evaluation)
    outlook = _Outlook(budget_mib, plan, prediction)
    with job.directory.locked():
        if job.known is None:
            store_record(job.directory.settings, job.wanted.planned(plan))
        job.directory.prepare()
        checkpoint = job.directory.load_latest()
        if job.wanted.new_labels and checkpoint is None:
            _fit_new_labels(job, data, engine, plan)
        trainer = _make_trainer(job, data, engine, outlook)
        trainer.resume(checkpoint)
        _tell_outlook(job, trainer, outlook)
        with RunLog(job.directory.log) as log:
            _log_start(job, trainer, outlook, log)
            return trainer.train(stop, log)


def _read_data(job: Job) -> TrainData:
    """Read and encode the training data and, where there is some, the held-out data."""
    options, length = job.options, job.wanted.settings.max_seq_len
    labels = job.wanted.labels

    def encoded(path: Path, left_out: Path | None = None) -> Encoded:
        return encode_file(
            job.bundle,
            path,
            job.console,
            max_seq_len=length,
            left_out=left_out,
            columns=options.columns,
            labels=labels,
        )

    training = encoded(options.train, options.left_out)
    held_out = encoded(options.eval) if options.eval else None
    return TrainData(training, held_out, bundle_task(job.bundle, labels))


def _choose_engine(job: Job) -> _Engine:
    """Choose the engine, and read the learners to begin with: the bundle's, or those of --learners."""
    wanted = job.wanted
    make, _, learners = choose_backend(wanted.backend, job.bundle, wanted.threads, dropout=wanted.settings.dropout)
    if job.options.learners:
        read_arrays_into(job.options.learners, learners)
        refuse_non_numbers(job.options.learners, learners)
    mu = wanted.settings.proximal_mu
    return _Engine(make, learners, Proximal(mu, learners) if mu else None)


def _budget(job: Job) -> float:
    """Return the budget in MiB; a cgroup limit below it counts, for the kernel would kill the process there."""
    budget, limit = budget_of(job.options, job.profile), cgroup_limit_mib()
    if limit is not None and limit < budget:
        job.console.warn(
            f"this process may use {limit:.0f} MiB only (cgroup limit), less than the budget of {budget:.0f} MiB"
        )
        return limit
    return budget


def _measure_machine(job: Job, budget_mib: float) -> StepTimes | None:
    """Return the cost model of this machine; None where it is unwanted, or the engine runs other graphs."""
    if not _portable(job):
        return None
    return step_times(
        job.options,
        job.bundle,
        job.wanted.threads,
        job.console,
        budget_mib,
        dropout=job.wanted.settings.dropout,
        optimizer=job.wanted.settings.optimizer,
    )


def _make_plan(job: Job, data: TrainData, budget_mib: float, times: StepTimes | None, *, cached: bool) -> Plan:
    """Plan micro-batches that fit the budget beside what is resident now; a continued run keeps its plan."""
    settings = job.wanted.settings
    release_free_memory()
    plan = make_plan(
        job.bundle.manifest,
        shapes_of(data.train, settings.batch_size, data.evaluation),
        budget_mib,
        resident_set().now_mib,
        job.options.micro_batch,
        loaded=True,
        keep=job.known.choice if job.known else None,
        optimizer=settings.optimizer,
        only_plain=not _portable(job),
        seconds=times,
        cached=cached,
        threads=job.wanted.threads,
    )
    if plan.predicted_peak_mib > budget_mib:
        job.console.warn(
            f"the plan of this run needs about {plan.predicted_peak_mib:.0f} MiB, the budget is {budget_mib:g} MiB"
        )
    return plan


def _compute_frozen(job: Job, data: TrainData, prefix: Prefix, plan: Plan, stop: StopRequest) -> tuple[TrainData, bool]:
    """Compute what the frozen blocks make of all texts; return the data with it, and whether all could be kept."""
    options, limit_mib = job.options, job.profile.storage.cache_mib
    path = cache_file(options)
    hidden = open_hidden(job.bundle, prefix, plan, job.wanted.threads, path, limit_mib, job.console)
    control = Control(options.control)

    def between_texts() -> None:
        control.wait_quietly(stop)
        if stop.requested:
            raise Deferred("stopped before the first step", hint="continue with --resume; nothing is computed twice")

    stored = fill(data, hidden, options.cache_exclusive, job.console, between_texts)
    return replace(data, hidden=hidden), stored


def _fit_new_labels(job: Job, data: TrainData, engine: _Engine, plan: Plan) -> None:
    """Let the rows of labels that took a place begin as a fit on their examples, in the learners to begin with."""
    labels = list(data.task.labels)
    rows = [labels.index(label) for label in job.wanted.new_labels]
    make, _, _ = choose_backend(job.wanted.backend, job.bundle, job.wanted.threads, dropout=False)
    backend = make(engine.learners, plan.parts_mib["activations"])
    count = fit_new_rows(
        backend,
        lambda number: data.batch(data.train, np.array([number])),
        data.train.labels,
        rows,
        len(labels),
        job.wanted.settings.seed,
    )
    backend.close()
    for name, array in backend.parameters.items():
        engine.learners[name] = array
    job.console.info(f"new labels: {', '.join(job.wanted.new_labels)}; their outputs begin as a fit on {count} texts")


def _make_trainer(job: Job, data: TrainData, engine: _Engine, outlook: _Outlook) -> Trainer:
    plan, pressure = outlook.plan, job.profile.pressure
    return Trainer(
        job.wanted.settings,
        data,
        plan,
        job.directory,
        lambda: engine.make(engine.learners, plan.parts_mib["activations"]),
        MemoryWatch(outlook.budget_mib, pressure.min_available_mib, pressure.max_memory_psi_some_avg10_percent),
        job.console,
        no_decay=frozenset(p.name for p in job.bundle.manifest.portable.parameters if not p.decay),
        checkpoint_seconds=job.options.checkpoint_minutes * 60,
        checkpoint_steps=job.options.checkpoint_steps,
        control=Control(job.options.control),
        prediction=outlook.prediction,
        proximal=engine.proximal,
    )


def _tell_outlook(job: Job, trainer: Trainer, outlook: _Outlook) -> None:
    plan, prediction = outlook.plan, outlook.prediction
    job.console.info(
        f"plan: {trainer.total_steps} steps of {job.wanted.settings.batch_size} examples, "
        f"micro-batch {plan.micro_batch} at {plan.longest} tokens; "
        f"predicted peak {plan.predicted_peak_mib:.0f} of {outlook.budget_mib:.0f} MiB"
    )
    if prediction is not None:
        job.console.info(
            f"time: about {prediction.step_seconds:.3g} s a step, {prediction.seconds:.0f} s in all on this machine"
        )


def _log_start(job: Job, trainer: Trainer, outlook: _Outlook, log: RunLog) -> None:
    log.write(
        "start" if log.empty else "resume",
        profile=job.profile.name,
        budget_mib=outlook.budget_mib,
        steps=trainer.total_steps,
        step=trainer.state.step,
        threads=job.wanted.threads,
        backend=job.wanted.backend,
        optimizer=job.wanted.settings.optimizer,
        onnxruntime=job.wanted.onnxruntime,
        method=job.bundle.manifest.selection.rung,
        reason=job.bundle.manifest.selection.reason,
        plan=outlook.plan.to_json(),
    )


def _portable(job: Job) -> bool:
    return job.wanted.backend == "portable"
