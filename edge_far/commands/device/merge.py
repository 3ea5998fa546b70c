"""Write the trained model as a plain inference model of the original architecture, which any ONNX Runtime loads.

The directory holds model.onnx with its weights.bin, tokenizer.json, labels.json, and release.json with what an
application must know of them. Trained learners are put back among
the non-learners, which keep their original fp32 values.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.common import load_learners, run_task
from edge_far.console import Console

EXAMPLES = """examples:
  edge-far merge bundle --run run --out model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far merge`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    parser.add_argument("--run", type=Path, metavar="RUN", help="a finished run; without it, the model as exported")
    parser.add_argument("--out", required=True, type=Path, metavar="MODEL", help="directory to create")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Merge; the document names the files."""
    from edge_far.bundles.bundle import open_bundle
    from edge_far.device.release import write_release
    from edge_far.storage import check_output

    check_output(options.out)
    bundle = open_bundle(options.bundle)
    learners = load_learners(bundle, options.run)
    manifest = bundle.manifest
    task = run_task(bundle, options.run)
    write_release(bundle, learners, options.out, task.threshold, task.labels)
    size = sum(path.stat().st_size for path in options.out.iterdir())
    return {
        "model": str(options.out / "model.onnx"),
        "out": str(options.out),
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
