"""Train a bundle on this machine, inside the memory budget of a device profile.

A plan is made before anything runs: micro-batches that fit the budget, with gradients accumulated to the whole batch.
Ctrl-C, SIGTERM and a closed terminal stop after a checkpoint; the same command with --resume continues, byte for byte,
also after a power cut.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_far.commands.arguments import AtLeast, Number, add_columns_argument, add_setting
from edge_far.commands.common import (
    add_budget_argument,
    add_optimizer_argument,
    add_probe_argument,
    add_profile_arguments,
    open_checked,
    profile_for,
    read_result,
    threads_of,
)
from edge_far.commands.device.label_places import new_labels, wanted_labels
from edge_far.console import Console
from edge_far.errors import DataError, OutputExists, StorageError
from edge_far.json_file import Within
from edge_far.quoting import shell_word
from edge_far.tasks.figures import short_text

if TYPE_CHECKING:  # imported where needed, so that --help and bad options answer at once
    from edge_far.bundles.bundle import Bundle
    from edge_far.device.run.checkpoint import RunDirectory
    from edge_far.device.run.settings import RunRecord, TrainSettings
    from edge_far.profile.document import Profile

# Here are the options, their checks and the report; the run itself is in training_phases.py.
EXAMPLES = """examples:
  edge-far train bundle --train train.jsonl --eval eval.jsonl --out run
  edge-far train bundle --train train.jsonl --out run --resume
  edge-far train bundle --train train.csv --out run --profile rpi4-2gb --epochs 2 --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far train`."""
    from edge_far.device.run.settings import STEPS

    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    parser.add_argument("--train", required=True, type=Path, metavar="FILE", help="labelled data: .jsonl, .csv or .tsv")
    add_columns_argument(parser)
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
    parser.add_argument(
        "--new-labels",
        action="store_true",
        help="let labels that the bundle does not know take the places that it keeps free (export --reserve-labels)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="a JSON list with the label of each output, the bundle's own among them",
    )
    parser.add_argument(
        "--left-out",
        type=Path,
        metavar="FILE",
        help="leave out training texts that the model cannot read, and write to this JSON file which and why",
    )
    parser.add_argument("--control", type=Path, metavar="FILE", help="a file that says run, pause or stop")
    add_profile_arguments(parser)
    add_budget_argument(parser)
    settings = parser.add_argument_group("training (defaults travel with the bundle)")
    add_setting(settings, "--epochs", metavar="N")
    add_setting(settings, "--batch-size", metavar="N", help="examples an optimiser step")
    add_setting(settings, "--learning-rate", metavar="RATE")
    add_optimizer_argument(settings)
    add_setting(settings, "--seed", metavar="N")
    add_setting(settings, "--max-seq-len", metavar="N", help="cut texts to N tokens: less memory")
    settings.add_argument(
        "--max-steps", action=Number, type=int, within=STEPS, metavar="N", help="stop after N optimiser steps"
    )
    settings.add_argument("--no-dropout", action="store_true")
    settings.add_argument(
        "--proximal-mu",
        action=Number,
        type=float,
        within=Within(0, 1000),
        default=0.0,
        metavar="MU",
        help="stay near the learners to begin with: FedProx's term, for a fleet's round (default: %(default)s)",
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--backend",
        choices=("auto", "portable", "ort-training"),
        default="auto",
        help="default: auto, which is portable",
    )
    add_probe_argument(machine)
    machine.add_argument(
        "--micro-batch", action=Number, type=int, within=AtLeast(1), metavar="N", help="at most N examples at a time"
    )
    machine.add_argument(
        "--checkpoint-minutes",
        action=Number,
        type=float,
        within=Within(0.01, 10_000),
        default=5.0,
        metavar="M",
        help="default: %(default)s, and after each epoch",
    )
    machine.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where the activations of frozen blocks are kept (default: the user's cache; storage.cache_mib of the "
        "profile bounds it)",
    )
    machine.add_argument("--cache-exclusive", action="store_true", help="keep in it what belongs to this run's texts")
    machine.add_argument(
        "--checkpoint-steps",
        action=Number,
        type=int,
        within=AtLeast(1),
        metavar="N",
        help="checkpoint every N steps instead",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Train; the document is the run's result."""
    from edge_far.device.run.checkpoint import RunDirectory
    from edge_far.device.run.settings import resolve_settings
    from edge_far.device.run.signals import StopRequest

    bundle = open_checked(options)
    profile = profile_for(options, bundle)
    settings = resolve_settings(bundle, _wishes(options, profile))
    directory = RunDirectory(options.out)
    known = _known_record(options, directory)
    threads = known.threads if known and options.threads is None else threads_of(options, profile, console)
    asked = options.labels or options.new_labels
    labels = wanted_labels(options, bundle) if asked or known is None else known.labels
    wanted = _wanted_record(options, bundle, settings, threads, labels)
    _warn_of_wishes(options, wanted, console)
    if known is not None:
        known.refuse_changes(wanted)
        if directory.result.is_file():
            console.info(f"{options.out}: this run is complete")
            document: dict[str, Any] = read_result(options.out)
            return {"run": str(options.out), **document}
        _warn_of_changes(known, wanted, console)
    directory.try_storage()
    with StopRequest() as stop:
        from edge_far.commands.device.training_phases import Job, train

        job = Job(options, console, bundle, profile, directory, wanted, known)
        try:
            return {"run": str(options.out), **train(job, stop)}
        except StorageError as error:
            if directory.settings.is_file():
                error.hint = (error.hint or "").replace("run the command again", "continue with --resume")
            raise


def _known_record(options: argparse.Namespace, directory: RunDirectory) -> RunRecord | None:
    """Return the record of the run to continue, None for a new run; raises OutputExists where none can begin."""
    from edge_far.device.run.settings import load_record

    if options.resume:
        return load_record(directory.settings)
    if not directory.unused:
        other = "choose another directory"
        raise OutputExists(
            "exists already and is not empty",
            where=str(options.out),
            hint=f"continue it with --resume, or {other}" if directory.settings.is_file() else other,
        )
    return None


def _wanted_record(
    options: argparse.Namespace, bundle: Bundle, settings: TrainSettings, threads: int, labels: tuple[str, ...]
) -> RunRecord:
    """Return the record of the run that is asked for, before its plan."""
    from edge_far.device.run.settings import RunRecord

    paths = {name: getattr(options, name) for name in ("train", "eval", "learners")}
    hashes = {name: _hash_of(path) for name, path in paths.items() if path}
    import onnxruntime  # takes a second or more, so after all that a bad file can end

    return RunRecord(
        settings=settings,
        bundle=bundle.fingerprint,
        train_sha256=hashes["train"],
        eval_sha256=hashes.get("eval"),
        backend="portable" if options.backend == "auto" else options.backend,
        threads=threads,
        rows={},
        evaluation_tokens=0,
        onnxruntime=onnxruntime.__version__,
        learners_sha256=hashes.get("learners"),
        labels=labels,
        new_labels=new_labels(options, bundle, labels),
    )


def _hash_of(path: Path) -> str:
    from edge_far.storage import sha256_of

    if path.is_dir():
        raise DataError("is a directory, not a file", where=str(path), hint="name one file in it")
    return sha256_of(path)


def _wishes(options: argparse.Namespace, profile: Profile) -> dict[str, Any]:
    return {
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "seed": options.seed,
        "max_seq_len": options.max_seq_len,
        "max_steps": options.max_steps,
        "dropout": False if options.no_dropout else None,
        "optimizer": options.optimizer or profile.training.optimizer,
        "proximal_mu": options.proximal_mu,
    }


def _warn_of_wishes(options: argparse.Namespace, wanted: RunRecord, console: Console) -> None:
    """Tell what was asked for and is seldom meant."""
    from edge_far.device.optimizers.registry import RATE_ADVICE

    settings = wanted.settings
    if settings.optimizer in RATE_ADVICE and options.learning_rate is None:
        console.warn(
            f"the learning rate {settings.learning_rate:g} is the bundle's, chosen for AdamW; "
            f"{RATE_ADVICE[settings.optimizer]}: name it with --learning-rate"
        )
    if wanted.train_sha256 == wanted.eval_sha256:
        console.warn("--eval is the training data: its accuracy says nothing about new texts")


def _warn_of_changes(known: RunRecord, wanted: RunRecord, console: Console) -> None:
    for field in ("threads", "onnxruntime"):
        before, now = getattr(known, field), getattr(wanted, field)
        if before != now:
            console.warn(f"{field} was {before}, is {now}: the result may differ in the last bits")


def render(document: dict[str, Any]) -> str:
    """Return the result for people."""
    measured = document["eval"]
    plan = document["plan"]
    predicted = document["predicted"]
    lines = [
        f"trained   {document['steps']} steps in {document['seconds']:.1f} s"
        f"{'' if predicted is None else ' (predicted ' + format(predicted['seconds'], '.1f') + ')'}, "
        f"{document['examples_per_second']:.1f} examples/s",
        f"memory    peak {document['peak_rss_mib']:.0f} of {document['budget_mib']:.0f} MiB",
        f"plan      micro-batch {plan['micro_batch']} x {plan['accumulation']} at {plan['longest']} tokens, "
        f"{document['backend']} backend, {document['optimizer']}",
        f"numbers   {document['trained_parameters']:,} trained parameters",
    ]
    if measured:
        lines.append(f"held out  {short_text(measured)} (step {measured['step']})")
    if "run" in document:
        lines.append(f"next      edge-far merge BUNDLE --run {shell_word(document['run'])} --out MODEL")
    return "\n".join(lines)
