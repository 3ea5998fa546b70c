"""Measure a bundle, or a bundle plus a run, on labelled data: the released model, exactly as `merge` would write it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.arguments import add_columns_argument
from edge_far.commands.common import (
    add_learners_argument,
    add_profile_arguments,
    encode_file,
    load_learners,
    open_checked,
    profile_for,
    run_labels,
    run_task,
    threads_of,
)
from edge_far.console import Console
from edge_far.tasks.figures import FIGURES, figures_of

EXAMPLES = """examples:
  edge-far eval bundle --data test.jsonl                 as exported
  edge-far eval bundle --run run --data test.jsonl       as trained
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far eval`."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="directory made by 'edge-far export'")
    add_learners_argument(parser, "a finished run of `edge-far train`")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="labelled data: .jsonl, .csv or .tsv")
    add_columns_argument(parser)
    add_profile_arguments(parser)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Evaluate; the document holds the metrics, and what the task tells beside them."""
    from edge_far.device.board.memory import resident_set, use_one_heap
    from edge_far.device.evaluation import evaluate, numbers_only
    from edge_far.device.release import ReleasedModel

    use_one_heap()
    bundle = open_checked(options)
    learners = load_learners(bundle, options.run, options.learners)
    labels = run_labels(bundle, options.run)
    encoded = encode_file(bundle, options.data, console, columns=options.columns, labels=labels)
    model = ReleasedModel(bundle, learners, threads_of(options, profile_for(options, bundle), console))
    metrics = evaluate(numbers_only(model.logits), encoded, run_task(bundle, options.run))
    return {
        "bundle": str(options.bundle),
        "run": str(options.run) if options.run else None,
        "data": str(options.data),
        "task": bundle.manifest.task.name,
        **metrics.document(),
        "peak_rss_mib": round(resident_set().peak_mib, 1),
        **metrics.details,
    }


def render(document: dict[str, Any]) -> str:
    """Return the headline figures and what was hardest."""
    from edge_far.tasks.registry import TASKS

    lines = [f"{FIGURES[name].title:<9} {FIGURES[name].shown(value)}" for name, value in figures_of(document).items()]
    lines[0] += f" on {document['examples']} examples"
    lines.append(f"loss      {document['loss']:.4f}")
    weakest = TASKS[document["task"]].weakest(document)
    return "\n".join(lines + ([f"weakest   {weakest}"] if weakest else []))
