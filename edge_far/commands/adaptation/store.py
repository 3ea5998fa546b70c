"""Look into the daemon's store: lines that could not be used, predictions that wait for a label, what was set aside."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.commands.arguments import AtLeast, Number
from edge_far.console import Console
from edge_far.daemon.state import DEFAULT_STATE, StateDirectory
from edge_far.quoting import one_line, quoted, shown

EXAMPLES = """examples:
  edge-far store quarantine          file, line, reason and beginning of each bad line, the newest first
  edge-far store predictions         what waits for a label; label it with 'edge-far add --id ID --label LABEL'
  edge-far store bring-back          put examples that were set aside back into use
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far store`."""
    parser.add_argument("what", choices=("quarantine", "predictions", "bring-back"))
    parser.add_argument(
        "--limit",
        action=Number,
        type=int,
        within=AtLeast(1),
        default=100,
        metavar="N",
        help="show at most N (default: %(default)s)",
    )
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="the daemon's (default: %(default)s)"
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Open the store beside a running daemon."""
    from edge_far.daemon.notes import Notes
    from edge_far.daemon.store.examples import Store
    from edge_far.errors import InputMissing

    state = StateDirectory(options.state)
    state.must_exist()
    if not state.store.exists():
        raise InputMissing("no store yet", where=str(state.store), hint="run 'edge-far daemon --once' first")
    document: dict[str, Any] = {"what": options.what}
    try:
        with Store(state.store) as store:
            if options.what == "quarantine":
                document["lines"] = [
                    {
                        "file": source.file,
                        "line": source.line,
                        "reason": reason,
                        "beginning": excerpt.decode("utf-8", "replace"),
                    }
                    for source, reason, excerpt in store.quarantined(options.limit)
                ]
            elif options.what == "predictions":
                document["predictions"] = [
                    {"id": name, "text": example.text, "text_pair": example.text_pair, "prediction": prediction}
                    for name, example, prediction in store.waiting_predictions(options.limit)
                ]
            else:
                with store.transaction():
                    document["brought_back"] = store.bring_back()
                Notes(state.notes).tell("data", None)
    finally:
        state.give_to_owner()
    return document


def render(document: dict[str, Any]) -> str:
    """Return one line an entry."""
    if document["what"] == "quarantine":
        lines = [
            f"{e['file']}:{e['line']}: {one_line(e['reason'])}: {quoted(e['beginning'], limit=80)}"
            for e in document["lines"]
        ]
        return "\n".join(lines) or "no line is in quarantine"
    if document["what"] == "predictions":
        lines = [
            f"{e['id']:<20} {shown(e['prediction'] or '-'):<20} {' + '.join(map(shown, _texts(e)))}"
            for e in document["predictions"]
        ]
        return "\n".join(lines) or "no prediction waits for a label"
    return f"{document['brought_back']} examples are in use again, as new ones"


def _texts(entry: dict[str, Any]) -> list[str]:
    return [text for text in (entry["text"], entry["text_pair"]) if text is not None]
