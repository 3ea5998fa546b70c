"""The labels of this device: those of its bundle, those it learnt itself, and those that wait for examples or a place.

A change counts from the next cycle on; the release of now says what it said. Labels of the bundle stay as they are.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from edge_far.commands.arguments import text_argument
from edge_far.console import Console
from edge_far.daemon.state import DEFAULT_STATE, StateDirectory
from edge_far.errors import InputMissing, UsageError
from edge_far.quoting import shown

EXAMPLES = """examples:
  edge-far labels list                           what is known, what took a place, what waits
  edge-far labels rename blinds_up shades_up     a label of this device, in its place and its examples
  edge-far labels merge dimm light_dim           a misspelt label: its examples get the other one
  edge-far labels forget test                    with its examples; its place is free again
"""

SHOWN_CHARACTERS = 60
WORDS = {"list": 0, "rename": 2, "merge": 2, "forget": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far labels`."""
    parser.add_argument("what", choices=tuple(WORDS))
    parser.add_argument("label", type=text_argument, nargs="*", metavar="LABEL")
    parser.add_argument(
        "--state", type=Path, default=DEFAULT_STATE, metavar="DIR", help="the daemon's (default: %(default)s)"
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        default=os.environ.get("EDGE_FAR_BUNDLE"),
        metavar="BUNDLE",
        help="the factory bundle (default: the one that the daemon ran with last)",
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Open the store beside a running daemon; the document has all labels after the change."""
    from edge_far.bundles.bundle import open_bundle
    from edge_far.daemon.new_labels import NewLabels
    from edge_far.daemon.store.examples import Store

    words = options.label
    if len(words) != WORDS[options.what]:
        raise UsageError(f"'{options.what}' takes {WORDS[options.what]} labels, not {len(words)}", where="labels")
    state = StateDirectory(options.state)
    state.must_exist()
    if not state.store.exists():
        raise InputMissing("no store yet", where=str(state.store), hint="run 'edge-far daemon --once' first")
    bundle = open_bundle(Path(options.bundle or _bundle_of(state)), signers=None)  # its labels alone are read
    document: dict[str, Any] = {"what": options.what}
    try:
        with Store(state.store) as store:
            labels = NewLabels(store, bundle.manifest.labels)
            if options.what != "list":
                with store.transaction():
                    document["examples"] = getattr(labels, options.what)(*words)
            document |= labels.document()
    finally:
        state.give_to_owner()
    return document


def render(document: dict[str, Any]) -> str:
    """Return one line a label that is not the bundle's own."""
    lines = [f"{document['examples']} examples changed"] if "examples" in document else []
    lines.append(
        f"{len(document['bundle'])} labels of the bundle, {document['free']} of {document['places']} places free"
    )
    lines += [f"learnt   {_short(each['label'])} ({each['examples']} examples)" for each in document["taken"]]
    lines += [f"waits    {_short(each['label'])} ({each['examples']} examples)" for each in document["waiting"]]
    return "\n".join(lines)


def _short(label: str) -> str:
    return shown(label if len(label) <= SHOWN_CHARACTERS else label[: SHOWN_CHARACTERS - 1] + "…")


def _bundle_of(state: StateDirectory) -> str:
    """Return the bundle that the daemon noted in its status."""
    from edge_far.json_file import Damaged, read_document

    try:
        found = read_document(state.status, dict[str, Any])["daemon"]["settings"]["bundle"]
    except (OSError, Damaged, KeyError, TypeError) as error:
        raise UsageError("no bundle is known yet", where="--bundle", hint="name the factory bundle") from error
    return str(found)
