"""Hand an example, a prediction or feedback over to the daemon; when this returns, it is on the storage device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.arguments import text_argument
from edge_far.console import Console
from edge_far.daemon.intake import spool

EXAMPLES = """examples:
  edge-far add --text "turn the lights on" --label light_on
  edge-far add --id 42 --text "dim it" --prediction light_off       no label yet
  edge-far add --id 42 --label light_dim                            the label, later
  edge-far add --id 43 --feedback correct
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far add`."""
    parser.add_argument("--text", type=text_argument)
    parser.add_argument("--text-pair", type=text_argument, metavar="TEXT", help="the second text of a pair")
    parser.add_argument("--label", type=text_argument)
    parser.add_argument("--id", type=text_argument, help="your own name for a prediction")
    parser.add_argument("--prediction", type=text_argument, metavar="LABEL", help="what the model said")
    parser.add_argument("--feedback", choices=spool.FEEDBACK, help="on the prediction of --id")
    parser.add_argument(
        "--spool", type=Path, default=spool.DEFAULT_SPOOL, metavar="DIR", help="the daemon's (default: %(default)s)"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Write one spool file."""
    path = spool.add(
        options.text,
        options.label,
        text_pair=options.text_pair,
        id=options.id,
        prediction=options.prediction,
        feedback=options.feedback,
        spool=options.spool,
    )
    return {"file": str(path)}


def render(document: dict[str, Any]) -> str:
    """Return what was written."""
    return f"handed over: {document['file']}"
