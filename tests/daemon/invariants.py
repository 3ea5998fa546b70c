"""What must hold after any fault: no acknowledged example lost or doubled, and `current` complete and loadable."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from edge_far.daemon.intake.arrival import in_order, waiting_in
from edge_far.daemon.intake.spool import is_ready
from edge_far.daemon.releases import Releases
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.identity import normalise

__all__ = ["Ledger", "current_problem", "examples_in", "store_problem"]


class Ledger:
    """The examples that were handed over: `acknowledged` must be there, `handing` may be."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.handing: dict[str, str] = {}

    def hand(self, examples: Iterable[tuple[str, str]]) -> None:
        """Note what is handed over from now on."""
        self.handing = {normalise(text): label for text, label in examples}

    def acknowledge(self) -> None:
        """Note that all of it is durable now."""
        self.acknowledged |= self.handing
        self.handing = {}

    def problem(self, found: Iterable[tuple[str, str]]) -> str | None:
        """Return what is wrong with the examples that were found, the earliest first; or None."""
        rows = [(normalise(text), label) for text, label in found]
        labels = dict(rows)
        allowed = {text: {label} for text, label in self.acknowledged.items()}
        for text, label in self.handing.items():
            allowed.setdefault(text, set()).add(label)
        lost = [text for text in self.acknowledged if text not in labels]
        wrong = [text for text in labels if text in allowed and labels[text] not in allowed[text]]
        strange = [text for text in labels if text not in allowed]
        figures = {"lost": lost, "with an old label": wrong, "never handed over": strange}
        said = [f"{len(texts)} examples {what}, the first '{texts[0]}'" for what, texts in figures.items() if texts]
        return "; ".join(said) or None


def examples_in(state: Path) -> list[tuple[str, str]]:
    """Return text and label of all examples of a state directory: those in the store, then those still in the spool.

    Raises AssertionError where the store has one twice. Changes nothing but what opening the store changes.
    """
    with closing(sqlite3.connect(state / "store.sqlite3")) as connection:
        rows = connection.execute("SELECT text, label FROM examples ORDER BY change").fetchall()
    assert len({normalise(text) for text, _ in rows}) == len(rows), "an example is in the store twice"
    return [*rows, *_waiting(state)]


def _waiting(state: Path) -> list[tuple[str, str]]:
    """Return the examples of spool files in the order in which they will be read, those under way first."""
    top = state / "spool"
    claimed = sorted((top / ".ingest").glob("*"))
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    waiting = waiting_in(descriptor, [path.name for path in top.iterdir() if is_ready(path.name)])
    os.close(descriptor)
    ready = [top / file.name for file in in_order(waiting, time.time_ns())]
    found = []
    with Store(state / "store.sqlite3") as store:
        for path in [*claimed, *ready]:
            position = store.spool_position(path.name) if path in claimed else None
            if position is not None and position[2]:
                continue
            for line in path.read_bytes()[position[0] if position else 0 :].splitlines():
                with suppress(ValueError):
                    record = json.loads(line)
                    found.append((record["text"], record["label"]))
    return found


def store_problem(state: Path) -> str | None:
    """Return what SQLite says about a store that is not sound, or None."""
    with closing(sqlite3.connect(state / "store.sqlite3")) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    return None if answer == "ok" else f"SQLite says: {answer}"


def current_problem(state: Path, *, load: bool = True) -> str | None:
    """Return what is wrong with the current release, or None; with `load` ONNX Runtime must take it."""
    releases = Releases(state / "model")
    current = releases.current_id()
    if current is None:
        return "no release is current"
    release = releases.verify(current)
    if load:
        import onnxruntime

        onnxruntime.InferenceSession(release.path / "model.onnx", providers=["CPUExecutionProvider"])
    return None
