"""Draw one picture of a run: loss and quality over steps, memory over time with the budget as a line.

Works on a finished, a running and an interrupted run. Needs matplotlib: run it on the workstation, on a copy
of the run's log.jsonl if need be.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.console import Console
from edge_far.errors import UsageError
from edge_far.process.privacy import keep_caches_together
from edge_far.report.plot import draw_run
from edge_far.report.runlog import read_run_log
from edge_far.tasks.figures import FIGURES

EXAMPLES = """examples:
  edge-far report runs/monday --out monday.png
  edge-far report log.jsonl --out monday.png     a log copied from the device
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge-far report`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a run, or its log.jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture to write")
    parser.add_argument("--title", help="heading of the picture (default: the profile's name)")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Draw the picture; return what it shows."""
    if options.out.suffix.lower() != ".png":
        raise UsageError(f"'{options.out}' is not a .png file", where="--out", hint="name it FILE.png")
    log = read_run_log(options.run)
    if log.torn_lines:
        console.warn(f"{log.torn_lines} torn line(s) of the log skipped")
    keep_caches_together()
    last = log.evals[-1] if log.evals else None
    draw_run(log, options.out, title=options.title or f"Training on {log.profile or 'this machine'}")
    return {
        "picture": str(options.out),
        "profile": log.profile,
        "method": log.method,
        "reason": log.reason,
        "steps": log.steps[-1].step,
        "planned_steps": log.planned_steps,
        "final_loss": log.steps[-1].loss,
        "score": last.figure if last is not None else None,
        **({last.figure: last.value} if last is not None else {"accuracy": None}),
        "peak_rss_mib": log.peak_rss_mib,
        "budget_mib": log.budget_mib,
        "resumes": len(log.resumes),
    }


def render(document: dict[str, Any]) -> str:
    """Return the line a person sees."""
    parts = [f"{document['steps']} steps, loss {document['final_loss']:.3f}"]
    if (name := document["score"]) is not None:
        shown = f"{document[name]:.1%}" if name == "accuracy" else FIGURES[name].shown(document[name])
        parts.append(f"eval {FIGURES[name].title} {shown}")
    if document["peak_rss_mib"] is not None:
        budget = "" if document["budget_mib"] is None else f" of {document['budget_mib']:.0f}"
        parts.append(f"peak memory {document['peak_rss_mib']:.0f}{budget} MiB")
    line = f"{document['picture']}: " + ", ".join(parts)
    if document["reason"] is None:
        return line
    return f"{line}\nmethod {document['method']}: {document['reason']}"
