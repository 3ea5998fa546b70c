"""Write the trained model as a plain inference model of the original architecture, which any ONNX Runtime loads.

The directory holds model.onnx with its weights.bin, tokenizer.json, labels.json, and release.json with what an
application must know of them. Trained learners are put back among
the non-learners, which keep their original fp32 values.

--format transformers writes config.json, model.safetensors and the tokenizer's files instead, which
AutoModelForSequenceClassification (or ...ForTokenClassification, ...ForQuestionAnswering) loads; --format
sentence-transformers does so for a model that pools the mean of all tokens, and its "embedding" are the logits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.common import add_learners_argument, load_learners, open_checked, run_task
from edge_far.console import Console

FORMATS = ("onnx", "transformers", "sentence-transformers")
EXAMPLES = """examples:
  edge-far merge bundle --run run --out model
  edge-far merge bundle --run run --out model --format transformers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far merge`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    add_learners_argument(parser, "a finished run; without it, the model as exported")
    parser.add_argument("--out", required=True, type=Path, metavar="MODEL", help="directory to create")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="who loads it (default: %(default)s)")
    parser.add_argument("--profile", help="device profile: its section 'security' says who must have signed the bundle")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Merge; the document names the files."""
    from edge_far.device.release import MODEL_FILE, write_release
    from edge_far.device.transformers_files import WEIGHTS, refuse_unfit_format, write_transformers_directory
    from edge_far.storage import check_output

    check_output(options.out)
    bundle = open_checked(options)
    if options.format != "onnx":
        refuse_unfit_format(bundle, options.format)
    learners = load_learners(bundle, options.run, options.learners)
    manifest = bundle.manifest
    task = run_task(bundle, options.run)
    if options.format == "onnx":
        write_release(bundle, learners, options.out, task.threshold, task.labels)
    else:
        write_transformers_directory(bundle, learners, options.out, options.format, task.threshold, task.labels)
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    return {
        "model": str(options.out / (MODEL_FILE if options.format == "onnx" else WEIGHTS)),
        "out": str(options.out),
        "format": options.format,
        "task": manifest.task.name,
        "labels": len(manifest.labels),
        "weights": manifest.released_weights,
        "mib": round(size / 2**20, 1),
    }


def render(document: dict[str, Any]) -> str:
    """Return what was written."""
    return f"{document['model']}: {document['mib']} MiB, {_learned(document)}; weights: {document['weights']}"


def _learned(document: dict[str, Any]) -> str:
    return f"{document['labels']} labels" if document["labels"] else str(document["task"])
