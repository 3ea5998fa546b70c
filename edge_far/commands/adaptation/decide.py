"""Decide whether a candidate may be released; the daemon runs this in a child of its own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from edge_far.console import Console

EXAMPLES = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    for name in ("candidate", "current", "held-out", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--factory", type=Path)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--settings", required=True, type=json.loads)
    parser.add_argument("--max-seq-len", required=True, type=int)
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--threads", default=1, type=int)


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Write the decision to --out and return it."""
    from edge_far.daemon.gate.decide import Question, decide_on_files
    from edge_far.daemon.gate.verdict import GateSettings
    from edge_far.storage import write_json

    question = Question(
        candidate=options.candidate,
        current=options.current,
        held_out=options.held_out,
        settings=GateSettings(**options.settings),
        max_seq_len=options.max_seq_len,
        vocabulary=options.vocabulary,
        threads=options.threads,
        factory=options.factory,
        base=options.base,
    )
    decision = decide_on_files(question)
    write_json(options.out, decision)
    return decision


def render(document: dict[str, Any]) -> str:
    """Return the reasons for people."""
    return "\n".join(document["reasons"])
