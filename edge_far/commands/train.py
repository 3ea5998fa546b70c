"""Train a bundle on this machine, inside the memory budget of a device profile.

A plan is made before anything runs: micro-batches that fit the budget, with gradients accumulated to the whole batch.
Ctrl-C and SIGTERM stop after a checkpoint; the same command with --resume continues, byte for byte, also after a power cut.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_far.commands.common import add_profile_arguments, budget_of, encode_file, profile_for, threads_of
from edge_far.console import Console
from edge_far.errors import ConfigError, InputMissing, OutputExists

EXAMPLES = """examples:
  edge-far train bundle --train train.jsonl --eval eval.jsonl --out run
  edge-far train bundle --train train.jsonl --out run --resume
  edge-far train bundle --train train.csv --out run --profile rpi4-2gb --epochs 2 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far train`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    parser.add_argument("--train", required=True, type=Path, metavar="FILE", help="labelled data: .jsonl, .csv or .tsv")
    parser.add_argument(
        "--eval",
        type=Path,
        metavar="FILE",
        help="held-out data: measured after each epoch; the best epoch wins",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="RUN", help="directory of the run")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    parser.add_argument(
        "--learners", type=Path, metavar="FILE", help="start from these (learners.safetensors of a run or a release)"
    )
    parser.add_argument("--control", type=Path, metavar="FILE", help="a file that says run, pause or stop")
    add_profile_arguments(parser)
    settings = parser.add_argument_group("training (defaults travel with the bundle)")
    settings.add_argument("--epochs", type=int, metavar="N")
    settings.add_argument("--batch-size", type=int, metavar="N", help="examples an optimiser step")
    settings.add_argument("--learning-rate", type=float, metavar="RATE")
    settings.add_argument("--seed", type=int, metavar="N")
    settings.add_argument("--max-seq-len", type=int, metavar="N", help="cut texts to N tokens: less memory")
    settings.add_argument("--max-steps", type=int, metavar="N", help="stop after N optimiser steps")
    settings.add_argument("--no-dropout", action="store_true")
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--backend",
        choices=("auto", "portable", "ort-training"),
        default="auto",
        help="default: auto, which is portable",
    )
    machine.add_argument("--micro-batch", type=int, metavar="N", help="at most N examples at a time")
    machine.add_argument(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="default: %(default)s, and after each epoch",
    )
    machine.add_argument("--checkpoint-steps", type=int, metavar="N", help="checkpoint every N steps instead")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Train; the document is the run's result."""
    from edge_far.bundle import open_bundle
    from edge_far.device.checkpoint import RunDirectory

    bundle = open_bundle(options.bundle)
    profile = profile_for(options, bundle)
    directory = RunDirectory(options.out)
    if options.resume and directory.result.is_file():
        console.info(f"{options.out}: this run is complete")
        document: dict[str, Any] = json.loads(directory.result.read_bytes())
        return document
    if not options.resume and options.out.exists() and not (options.out.is_dir() and not any(options.out.iterdir())):
        raise OutputExists(
            "exists already and is not empty",
            where=str(options.out),
            hint="continue it with --resume, or choose another directory",
        )
    for path in (options.train, options.eval, options.learners):
        if path is not None and not path.exists():
            raise InputMissing("no such file", where=str(path), hint="check the path")
    return _train(options, console, bundle, profile, directory)


def _train(options: argparse.Namespace, console: Console, bundle: Any, profile: Any, directory: Any) -> dict[str, Any]:
    from dataclasses import replace

    import onnxruntime

    from edge_far.device.arrays import read_arrays_into
    from edge_far.device.backends import choose_backend
    from edge_far.device.control import Control
    from edge_far.device.memory import cgroup_limit_mib, release_free_memory, resident_set, use_one_heap
    from edge_far.device.plan import Plan, make_plan, shapes_of
    from edge_far.device.pressure import MemoryWatch
    from edge_far.device.runlog import RunLog
    from edge_far.device.settings import RunRecord, load_record, resolve_settings, store_record
    from edge_far.device.signals import StopRequest
    from edge_far.device.trainer import TrainData, Trainer
    from edge_far.storage import sha256_of

    use_one_heap()
    settings = resolve_settings(bundle, _wishes(options, profile))
    threads = threads_of(options, profile)
    train = encode_file(bundle, options.train, console, max_seq_len=settings.max_seq_len)
    held_out = encode_file(bundle, options.eval, console, max_seq_len=settings.max_seq_len) if options.eval else None
    make_backend, backend_name, learners = choose_backend(options.backend, bundle, threads, dropout=settings.dropout)
    if options.learners:
        read_arrays_into(options.learners, learners)
    release_free_memory()
    budget = _effective_budget(budget_of(options, profile), cgroup_limit_mib(), console)
    plan: Plan = make_plan(
        bundle.manifest,
        shapes_of(train, settings.batch_size),
        budget,
        resident_set().now_mib,
        options.micro_batch,
        loaded=True,
    )
    record = RunRecord(
        settings=settings,
        bundle=bundle.fingerprint,
        train_sha256=sha256_of(options.train),
        eval_sha256=sha256_of(options.eval) if options.eval else None,
        backend=backend_name,
        threads=threads,
        rows={str(length): rows for length, rows in plan.rows.items()},
        onnxruntime=onnxruntime.__version__,
        learners_sha256=sha256_of(options.learners) if options.learners else None,
    )
    if options.resume:
        known = load_record(directory.settings)
        _refuse_changes(known, record, options, console)
        plan = replace(plan, rows={int(length): rows for length, rows in known.rows.items()})
    directory.prepare()
    checkpoint = directory.load_latest() if options.resume else None
    if not options.resume:
        store_record(directory.settings, record)
    trainer = Trainer(
        settings,
        TrainData(train, held_out, len(bundle.manifest.labels)),
        plan,
        directory,
        lambda: make_backend(learners),
        MemoryWatch(budget, profile.pressure.min_available_mib),
        console,
        no_decay=frozenset(p.name for p in bundle.manifest.portable.parameters if not p.decay),
        checkpoint_seconds=options.checkpoint_minutes * 60,
        checkpoint_steps=options.checkpoint_steps,
        control=Control(options.control),
    )
    trainer.resume(checkpoint)
    console.info(
        f"plan: {trainer.total_steps} steps of {settings.batch_size} examples, micro-batch {plan.micro_batch} at "
        f"{plan.longest} tokens; predicted peak {plan.predicted_peak_mib:.0f} of {budget:.0f} MiB"
    )
    with RunLog(directory.log) as log, StopRequest() as stop:
        log.write(
            "resume" if options.resume else "start",
            profile=profile.name,
            budget_mib=budget,
            steps=trainer.total_steps,
            step=trainer.state.step,
            threads=threads,
            backend=backend_name,
            onnxruntime=onnxruntime.__version__,
            plan=plan.to_json(),
        )
        return {"run": str(options.out), **trainer.train(stop, log)}


def _wishes(options: argparse.Namespace, profile: Any) -> dict[str, Any]:
    return {
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "max_seq_len": options.max_seq_len,
        "max_steps": options.max_steps,
        "dropout": False if options.no_dropout else None,
    }


def _effective_budget(budget: float, limit: float | None, console: Console) -> float:
    """A cgroup limit below the budget counts: the kernel would kill the process there."""
    if limit is not None and limit < budget:
        console.warn(
            f"this process may use {limit:.0f} MiB only (cgroup limit), less than the budget of {budget:.0f} MiB"
        )
        return limit
    return budget


def _refuse_changes(known: Any, record: Any, options: argparse.Namespace, console: Console) -> None:
    """A resumed run must be the same run; what may differ without changing its meaning is said."""
    checks = (
        ("bundle", "BUNDLE", "the bundle differs from the one the run was started with"),
        ("train_sha256", "--train", "the training data differs from what the run was started with"),
        ("learners_sha256", "--learners", "the run was started from other learners"),
        ("eval_sha256", "--eval", "the evaluation data differs from what the run was started with"),
        (
            "settings",
            "settings",
            f"the settings differ from those the run was started with ({known.settings})",
        ),
        ("backend", "--backend", f"the run was started with {known.backend}"),
    )
    for field, where, message in checks:
        if getattr(known, field) != getattr(record, field):
            raise ConfigError(message, where=where, hint="repeat the first command with --resume, or start a new run")
    for field in ("threads", "onnxruntime"):
        if getattr(known, field) != getattr(record, field):
            console.warn(
                f"{field} was {getattr(known, field)}, is {getattr(record, field)}: the result may differ in the last bits"
            )


def render(document: dict[str, Any]) -> str:
    """Return the result for people."""
    measured = document["eval"]
    plan = document["plan"]
    lines = [
        f"trained   {document['steps']} steps in {document['seconds']:.1f} s, {document['examples_per_second']:.1f} examples/s",
        f"memory    peak {document['peak_rss_mib']:.0f} of {document['budget_mib']:.0f} MiB",
        f"plan      micro-batch {plan['micro_batch']} x {plan['accumulation']} at {plan['longest']} tokens, {document['backend']} backend",
        f"numbers   {document['trained_parameters']:,} trained parameters",
    ]
    if measured:
        lines.append(
            f"held out  accuracy {measured['accuracy']:.2%}, macro-F1 {measured['macro_f1']:.3f} (step {measured['step']})"
        )
    if "run" in document:
        lines.append(f"next      edge-far merge BUNDLE --run {document['run']} --out MODEL")
    return "\n".join(lines)
