"""Writes down what a cycle trains and measures on, as files that stay the same until its end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from edge_far.daemon.context import Context
from edge_far.daemon.state import CycleDirectory
from edge_far.errors import Deferred
from edge_far.storage import staged_directory, write_json
from edge_far.texts.data import Example
from edge_far.texts.labels import LabelForm
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["write_material"]


def write_material(context: Context, change: int, root: Path | None = None) -> dict[str, int]:
    """Write the examples up to `change` and the host's samples into the cycle's directory; return how many by file.

    With `root` into that directory instead, which is replaced as well.

    Examples with labels that the model does not know are left out, which a note tells. Raises Deferred (75) where
    nothing is left to train on.
    """
    store, labels, names = context.store, context.learnable, context.new_labels.names()
    counts: dict[str, int] = {}
    unknown = 0
    with staged_directory(root or context.state.cycle.root, replace=True) as staging:
        files = CycleDirectory(staging)
        for path, held_out in ((files.train, False), (files.held_out, True)):
            examples = (stored.example for stored in store.examples(held_out=held_out, up_to_change=change))
            with path.open("wb") as file:
                counts[path.name], left_out = _write(file, examples, labels)
            unknown += left_out
        if names != context.bundle.manifest.labels:
            write_json(files.labels, list(names))
        if not counts[files.train.name]:
            raise Deferred("no example to train on: all are held out or have unknown labels")
        if context.profile.adaptation.use_replay:
            with files.train.open("ab") as file:
                counts["replay"], _ = _write(file, store.replay(held_out=False), labels)
            with files.base.open("wb") as file:
                counts[files.base.name], _ = _write(file, store.replay(held_out=True), labels)
    context.notes.tell(
        "labels",
        f"{unknown} examples have labels that this model does not know and are not used" if unknown else None,
        "see 'edge-far labels list'; or export a bundle with these labels, or with more places for new ones",
    )
    return counts


def _write(file: BinaryIO, examples: Iterable[Example], labels: LabelForm) -> tuple[int, int]:
    """Write examples as JSON lines; return how many were written and how many have labels that are not known."""
    used = unknown = 0
    for example in examples:
        label = _known(example, labels)
        if label is None:
            unknown += 1
            continue
        record = {"text": example.text, "text_pair": example.text_pair, "label": labels.value(label)}
        line = json.dumps({k: v for k, v in record.items() if v is not None}, ensure_ascii=False)
        file.write(line.encode("utf-8") + b"\n")
        used += 1
    return used, unknown


def _known(example: Example, labels: LabelForm) -> str | None:
    """Return a label of the store as the model of now reads it, None where it cannot learn it."""
    try:
        read = labels.read(example.label)
    except RecordProblem:  # of another model's time
        return None
    return (
        None if read is None or labels.unknown(read) or labels.misfit(read, example.text, example.text_pair) else read
    )
