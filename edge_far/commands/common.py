"""What several device commands do alike: open a bundle, find a run's learners, read and encode data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_far.bundles.arrays import read_arrays_into, read_learners, refuse_non_numbers
from edge_far.bundles.bundle import Bundle, open_bundle
from edge_far.commands.arguments import Number
from edge_far.commands.profile_choice import default_profile, profile_word
from edge_far.console import Console
from edge_far.errors import BundleError, ConfigError, DataError, InputMissing
from edge_far.json_file import Damaged, Within, read_document
from edge_far.profile.document import Profile, load_profile
from edge_far.profile.run_sections import Training
from edge_far.profile.schema import settings_of
from edge_far.storage import sha256_of, write_json
from edge_far.tasks.interface import Task
from edge_far.tasks.registry import task_of
from edge_far.texts.data import OUR_NAMES, iterate_examples
from edge_far.texts.encode import Encoded, Encoder
from edge_far.texts.reading.columns import Columns

if TYPE_CHECKING:
    from edge_far.device.planning.step_times import StepTimes

__all__ = [
    "add_budget_argument",
    "add_learners_argument",
    "add_optimizer_argument",
    "add_probe_argument",
    "add_profile_arguments",
    "add_threads_argument",
    "budget_of",
    "bundle_task",
    "encode_file",
    "encoder_for",
    "load_learners",
    "open_checked",
    "profile_for",
    "read_result",
    "refuse_another_bundle",
    "run_task",
    "step_times",
    "threads_of",
]


def add_profile_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --profile and --threads."""
    parser.add_argument(
        "--profile",
        type=profile_word,
        help="device profile: a name, a YAML file, or auto, this board's where it is known (default: the bundle's; "
        "auto for a bundle that was exported for no board)",
    )
    add_threads_argument(parser, "threads instead of the profile's")


def add_threads_argument(parser: argparse.ArgumentParser, help: str) -> None:
    """Declare --threads."""
    parser.add_argument("--threads", action=Number, type=int, within=Within(1, 1024), metavar="N", help=help)


def add_budget_argument(parser: argparse.ArgumentParser) -> None:
    """Declare --budget-mib."""
    parser.add_argument(
        "--budget-mib",
        action=Number,
        type=int,
        within=Within(1, 1 << 20),
        unit=" MiB",
        metavar="MIB",
        help="memory budget instead of the profile's",
    )


def add_optimizer_argument(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Declare --optimizer."""
    parser.add_argument(
        "--optimizer",
        choices=settings_of(Training)["optimizer"][1].choices,
        help="instead of the profile's: adamw8bit keeps a quarter of adamw's state, lion and sgd half of it but want "
        "another --learning-rate (lion a third to a tenth of adamw's, sgd many times it)",
    )


def add_probe_argument(parser: argparse._ActionsContainer) -> None:
    """Declare --no-probe."""
    parser.add_argument(
        "--no-probe", action="store_true", help="predict no times: do not measure this machine's speed (once, 10 s)"
    )


def step_times(
    options: argparse.Namespace,
    bundle: Bundle,
    threads: int,
    console: Console,
    budget_mib: float,
    *,
    dropout: bool,
    optimizer: str,
) -> StepTimes | None:
    """Return the cost model of this machine, measured now where it never was; None where that fails or is unwanted."""
    from edge_far.device.board.memory import resident_set
    from edge_far.device.planning.machine_speed import calibrate
    from edge_far.device.planning.step_times import StepTimes

    room_mib = budget_mib - resident_set().now_mib
    calibration = None if options.no_probe else calibrate(bundle, threads, console, room_mib)
    return (
        None if calibration is None else StepTimes(bundle.manifest, calibration, dropout=dropout, optimizer=optimizer)
    )


def open_checked(options: argparse.Namespace) -> Bundle:
    """Open the bundle of a command; the profile asked for may say who must have signed it."""
    signers = load_profile(options.profile).security if options.profile is not None else None
    return open_bundle(options.bundle, signers)


def profile_for(options: argparse.Namespace, bundle: Bundle) -> Profile:
    """Return the profile asked for, or the bundle's, or this board's (profile_choice.py)."""
    return load_profile(options.profile or default_profile(bundle.manifest.profile))


def budget_of(options: argparse.Namespace, profile: Profile) -> float:
    """Return the memory budget in MiB: as asked, or the profile's."""
    return float(profile.memory.budget_mib if options.budget_mib is None else options.budget_mib)


def threads_of(options: argparse.Namespace, profile: Profile | None, console: Console) -> int:
    """Return the number of threads: as asked, or the profile's (without one 1), as many as can run here at once."""
    from edge_far.device.board.cpu import cpu_share

    share = cpu_share()
    asked: int | None = options.threads
    if asked is not None:
        if share.quota is not None and asked > share.most_threads:
            console.warn(f"{asked} threads are slower than {share.most_threads} here: {share.quota_text}")
        return asked
    if profile is None:
        return 1
    threads = share.threads(profile.compute.threads)
    if share.quota is not None and threads < min(profile.compute.threads, len(share.cores)):
        console.info(
            f"{threads} thread{'s' * (threads > 1)} instead of the profile's {profile.compute.threads}: "
            f"this process has a {share.quota_text} (control group)"
        )
    return threads


def add_learners_argument(parser: argparse.ArgumentParser, run_help: str) -> None:
    """Declare --run and --learners, of which one may be named."""
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--run", type=Path, metavar="RUN", help=run_help)
    chosen.add_argument(
        "--learners", type=Path, metavar="FILE", help="instead of a run: learners.safetensors of a release or a fleet"
    )


def load_learners(bundle: Bundle, run: Path | None, file: Path | None = None) -> dict[str, np.ndarray]:
    """Return the trained parameters: a finished run's, those of a file, or the bundle's own where both are None."""
    own = bundle.path("learners.safetensors")
    if file is not None:
        learners = {name: np.empty_like(array) for name, array in read_learners(own).items()}
        if not file.is_file():
            raise InputMissing("file does not exist", where=str(file))
        read_arrays_into(file, learners)
        refuse_non_numbers(file, learners)
        return learners
    if run is None:
        return read_learners(own)
    result = read_result(run)
    refuse_another_bundle(bundle, run)
    path = run / "learners.safetensors"
    if sha256_of(path) != result.get("learners_sha256"):
        raise BundleError("the content does not match result.json", where=str(path), hint="train again")
    return read_learners(path)


def refuse_another_bundle(bundle: Bundle, run: Path) -> None:
    """Raise ConfigError where a run was trained from another bundle, BundleError where its record is damaged."""
    try:
        record = read_document(run / "run.json", dict[str, Any])
    except (OSError, Damaged) as error:
        raise BundleError("the run is damaged: run.json cannot be read", where=str(run), hint="train again") from error
    if record.get("bundle") != bundle.fingerprint:
        raise ConfigError(
            "the run was trained from another bundle",
            where=str(run),
            hint="name the bundle it was started with",
        )


def read_result(run: Path) -> dict[str, Any]:
    """Return the result of a finished run; raises InputMissing where there is none, BundleError when it is damaged."""
    if not run.is_dir():
        raise InputMissing("no such run", where=str(run), hint="name a directory made by 'edge-far train --out'")
    from edge_far.device.run.figures import check_result

    path = run / "result.json"
    if not path.is_file():
        hint = "finish it with 'edge-far train ... --resume'"
        if not (run / "run.json").is_file():
            hint = "name a directory made by 'edge-far train --out'"
        raise InputMissing("this run has no result yet: result.json is missing", where=str(run), hint=hint)
    try:
        document: dict[str, Any] = read_document(path, dict[str, Any])
        check_result(document)
    except (OSError, Damaged) as error:
        message = f"the run is damaged: result.json cannot be read: {error}"
        raise BundleError(message, where=str(run), hint="train again") from error
    return document


def encoder_for(bundle: Bundle, max_seq_len: int | None = None) -> Encoder:
    """Return the bundle's tokenizer."""
    return Encoder(
        bundle.path("tokenizer.json"),
        max_seq_len or bundle.manifest.defaults.max_seq_len,
        token_types=bundle.manifest.portable.token_types,
        vocabulary=bundle.manifest.model.vocabulary,
    )


def bundle_task(bundle: Bundle, labels: Sequence[str] = ()) -> Task:
    """Return what the bundle learns; raises BundleError where the manifest contradicts itself.

    `labels` name all its outputs where labels took places that it keeps free.
    """
    labels, info = labels or bundle.manifest.labels, bundle.manifest.task
    task = None
    with suppress(ValueError):
        task = task_of(info.name, labels, info.scale)
    if task is None or task.info != info:
        message = "manifest.json is damaged: its 'task' contradicts itself"
        raise BundleError(message, where=str(bundle.root), hint="export it again")
    return task


def run_task(bundle: Bundle, run: Path | None) -> Task:
    """Return what the bundle learns, with the settings that a finished run measured on its held-out data."""
    measured = None if run is None else read_result(run)["eval"]
    return bundle_task(bundle, run_labels(bundle, run)).fitted(measured or {})


def run_labels(bundle: Bundle, run: Path | None) -> tuple[str, ...]:
    """Return the labels of a run's outputs, the bundle's own where the run says nothing else."""
    if run is None:
        return bundle.manifest.labels
    from edge_far.device.run.settings import load_record

    return load_record(run / "run.json").labels or bundle.manifest.labels


def encode_file(
    bundle: Bundle,
    path: Path,
    console: Console,
    *,
    max_seq_len: int | None = None,
    left_out: Path | None = None,
    columns: Columns = OUR_NAMES,
    labels: Sequence[str] = (),
) -> Encoded:
    """Read and encode labelled data, whose fields are called as `columns` says; says how many texts were cut.

    `labels` are bundle_task's.

    A text that the model cannot read is a DataError; with the file `left_out` it is left out, and told there as JSON:
    the reason by the example's number from 0.
    """
    task = bundle_task(bundle, labels)
    examples = iterate_examples(path, labels=task.form, columns=columns)
    unreadable: dict[int, str] | None = None if left_out is None else {}
    try:
        encoded = encoder_for(bundle, max_seq_len).encode(examples, task.targets, unreadable)
    except DataError as error:
        raise DataError(error.message, where=error.where or str(path), hint=error.hint) from error
    if left_out is not None:
        write_json(left_out, unreadable)
        if not len(encoded):
            raise DataError("the model can read none of the texts", where=str(path), hint=f"see {left_out}")
    if encoded.truncated:
        console.info(f"{path}: {encoded.truncated} of {len(encoded)} texts cut to {encoded.max_seq_len} tokens")
    return encoded
