"""Write the trained model as a plain inference model of the original architecture, which any ONNX Runtime loads.

The directory holds model.onnx with its weights.bin, tokenizer.json, labels.json, and release.json with what an
application must know of them; config.json lets optimum load it. Trained learners are put back among
the non-learners, which keep their original fp32 values.

--precision fp16 or int8 stores the matrices in fewer bits; --eval measures size, time and the task's figures beside
fp32, shows them, and notes them in release.json.

--format transformers writes config.json, model.safetensors and the tokenizer's files instead, which
AutoModelForSequenceClassification (or ...ForTokenClassification, ...ForQuestionAnswering) loads; --format
sentence-transformers does so for a model that pools the mean of all tokens, and its "embedding" are the logits.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_far.commands.arguments import add_columns_argument
from edge_far.commands.common import (
    add_learners_argument,
    add_threads_argument,
    encode_file,
    load_learners,
    open_checked,
    profile_for,
    run_task,
    threads_of,
)
from edge_far.console import Console
from edge_far.errors import UsageError
from edge_far.profile.adaptation_sections import Adaptation
from edge_far.profile.document import load_profile
from edge_far.profile.schema import settings_of
from edge_far.tasks.figures import FIGURES, figures_of
from edge_far.texts.reading.columns import Columns

if TYPE_CHECKING:
    from edge_far.bundles.bundle import Bundle
    from edge_far.device.release_files import Measure, Precision
    from edge_far.tasks.interface import Task

FORMATS = ("onnx", "transformers", "sentence-transformers")
PRECISIONS = settings_of(Adaptation)["release_precision"][1].choices
EXAMPLES = """examples:
  edge-far merge bundle --run run --out model
  edge-far merge bundle --run run --out model --precision int8 --eval test.jsonl
  edge-far merge bundle --run run --out model --format transformers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far merge`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    add_learners_argument(parser, "a finished run; without it, the model as exported")
    parser.add_argument("--out", required=True, type=Path, metavar="MODEL", help="directory to create")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="who loads it (default: %(default)s)")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="how model.onnx stores its matrices (default: the profile's adaptation.release_precision, or else fp32)",
    )
    parser.add_argument(
        "--eval", type=Path, metavar="FILE", help="labelled data: measure the model on it, and fp32 beside it"
    )
    add_columns_argument(parser)
    add_threads_argument(parser, "threads for --eval instead of the profile's")
    parser.add_argument(
        "--profile", help="device profile: who must have signed the bundle, and adaptation.release_precision"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Merge; the document names the files, and what was measured of them."""
    from edge_far.device.release_files import MODEL_FILE, write_release
    from edge_far.device.transformers_files import WEIGHTS, refuse_unfit_format, write_transformers_directory
    from edge_far.storage import check_output

    _refuse_idle_options(options)
    check_output(options.out)
    precision = _precision(options)
    bundle = open_checked(options)
    if options.format != "onnx":
        refuse_unfit_format(bundle, options.format)
    learners = load_learners(bundle, options.run, options.learners)
    manifest = bundle.manifest
    task = run_task(bundle, options.run)
    measured = None
    if options.format == "onnx":
        measure = _measure(options, bundle, learners, task, precision, console) if options.eval else None
        measured = write_release(bundle, learners, options.out, task.threshold, task.labels, precision, measure)
    else:
        write_transformers_directory(bundle, learners, options.out, options.format, task.threshold, task.labels)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    return {
        "model": str(options.out / (MODEL_FILE if options.format == "onnx" else WEIGHTS)),
        "out": str(options.out),
        "format": options.format,
        "precision": precision,
        "task": manifest.task.name,
        "labels": len(manifest.labels),
        "weights": manifest.released_weights,
        "mib": round(size / 2**20, 1),
        "measured": measured,
    }


def _refuse_idle_options(options: argparse.Namespace) -> None:
    """Raise UsageError for options that only a measurement reads, where none was asked for."""
    for option, named in (("--columns", options.columns != Columns()), ("--threads", options.threads is not None)):
        if named and options.eval is None:
            hint = f"leave {option} out, or add --eval FILE"
            raise UsageError("does nothing without --eval", where=option, hint=hint)


def _precision(options: argparse.Namespace) -> Precision:
    """Return the precision asked for, or the profile's; raises UsageError where the format has no other than fp32."""
    if options.format != "onnx":
        for option, value in (("--precision", options.precision not in (None, "fp32")), ("--eval", options.eval)):
            if value:
                hint = f"leave {option} out, or take --format onnx"
                raise UsageError(f"{option} is for ONNX models; {options.format} loads fp32", hint=hint)
        return "fp32"
    if options.precision is None and options.profile:
        return load_profile(options.profile).adaptation.release_precision
    precision: Precision = options.precision or "fp32"
    return precision


def _measure(
    options: argparse.Namespace,
    bundle: Bundle,
    learners: Mapping[str, np.ndarray],
    task: Task,
    precision: Precision,
    console: Console,
) -> Measure:
    """Return what measures a written release, beside the same model in fp32."""
    from edge_far.device.board.cpu import cpu_name
    from edge_far.device.release_files import write_release
    from edge_far.device.release_quality import measure_release

    encoded = encode_file(bundle, options.eval, console, columns=options.columns, labels=task.labels)
    threads = threads_of(options, profile_for(options, bundle), console)

    def measure(directory: Path) -> dict[str, Any]:
        found: dict[str, Any] = {"examples": len(encoded), "cpu": cpu_name(), "threads": threads}
        found[precision] = measure_release(directory, encoded, task, threads)
        if precision != "fp32":
            reference = directory / ".fp32"
            write_release(bundle, learners, reference, task.threshold, task.labels)
            found["fp32"] = measure_release(reference, encoded, task, threads)
            shutil.rmtree(reference)
        return found

    return measure


def render(document: dict[str, Any]) -> str:
    """Return what was written, and a line for each precision that was measured."""
    stored = f"{document['mib']} MiB in {document['precision']}"
    lines = [f"{document['model']}: {stored}, {_learned(document)}; weights: {document['weights']}"]
    measured = document["measured"] or {}
    for precision in (name for name in PRECISIONS if name in measured):
        found = measured[precision]
        name, value = next(iter(figures_of(found).items()))
        lines.append(
            f"{precision:<5} {found['mib']:7.1f} MiB {found['milliseconds']:8.2f} ms a text   "
            f"{FIGURES[name].title} {FIGURES[name].shown(value)} on {measured['examples']} examples"
        )
    return "\n".join(lines)


def _learned(document: dict[str, Any]) -> str:
    return f"{document['labels']} labels" if document["labels"] else str(document["task"])
