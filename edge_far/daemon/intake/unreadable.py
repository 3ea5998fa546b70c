"""Examples that the model cannot read: each goes into quarantine by itself, and the others train.

The trainer and the gate leave such texts out, and say which: a text without a token, or with a token that the model's
table has no row for. Refuses to know why; it takes the words of the child.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from edge_far.daemon.store.examples import Source, Store
from edge_far.daemon.store.identity import example_key
from edge_far.daemon.store.retention import remove_example

__all__ = ["quarantine_unreadable", "read_left_out"]


def read_left_out(path: Path) -> dict[str, str]:
    """Return what a child left out, the reason by the line's number from 0; {} where it did not come as far."""
    with suppress(OSError, ValueError):
        document = json.loads(path.read_bytes())
        if isinstance(document, dict):
            return {str(number): str(reason) for number, reason in document.items()}
    return {}


def quarantine_unreadable(store: Store, left_out: Mapping[str, str], examples: Path) -> int:
    """Move the lines `left_out` of a cycle's file of examples from the store into quarantine; return how many.

    A line that was moved before does nothing. Raises StorageError.
    """
    if not left_out:
        return 0
    moved = 0
    with examples.open("rb") as file, store.transaction():
        for number, line in enumerate(file):
            reason = left_out.get(str(number))
            if reason is None:
                continue
            record = json.loads(line)
            source = remove_example(store.database, example_key(record["text"], record.get("text_pair")))
            if source is not None:
                store.quarantine(Source(*source), f"the text {reason}", line.rstrip(b"\n"))
                moved += 1
    return moved
