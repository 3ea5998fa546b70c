"""What the device remembers: labelled examples, predictions that wait for a label, quarantined lines, replay.

Refuses to know files and formats (spool.py) and what a cycle does (cycle.py). Changes belong inside
`with store.transaction():`, which is durable when it ends. "Later" means later by arrival, never by a time
stamp: clocks of devices in the field are wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edge_far.daemon.store.database import BUSY_TIMEOUT_S, Database
from edge_far.daemon.store.identity import example_key, is_held_out
from edge_far.daemon.store.retention import (
    DAY_S,
    Retention,
    remove_examples,
    remove_predictions,
    remove_quarantined,
)
from edge_far.daemon.store.schema import MIGRATIONS
from edge_far.errors import DataError
from edge_far.texts.data import Example

__all__ = ["Source", "Store", "StoreCounts", "StoredExample"]

CLOCK_JUMP_S = 7 * DAY_S
EXCERPT_BYTES = 4096

Outcome = Literal["new", "duplicate", "corrected"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where an example came from: a spool file's name and line, or a command and 0."""

    file: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class StoredExample:
    """A labelled example of the store; `change` grows with each insertion and correction."""

    example: Example
    change: int
    held_out: bool
    corrections: int
    source: Source
    received_s: float


@dataclass(frozen=True)
class StoreCounts:
    """What `status` tells about the store; `new_examples` is relative to the change that was asked about."""

    examples: int
    held_out: int
    new_examples: int
    labels: int
    set_aside: int
    predictions: int
    quarantined: int
    quarantine_let_go: int
    replay: int
    highest_change: int


class Store:
    """The store of one device; raises StorageError (74) for everything the database refuses."""

    def __init__(
        self,
        path: Path,
        *,
        held_out_share: float = 0.2,
        clock: Callable[[], float] = time.time,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Open or make the store; `held_out_share` counts only when it is made, for the split is for ever."""
        self._database = Database(path, MIGRATIONS, busy_timeout_s=busy_timeout_s)
        if self._meta("held_out_share") is None:
            with self.transaction():
                self._set_meta("held_out_share", held_out_share)
        self.held_out_share = float(self._meta("held_out_share") or 0.0)
        self._clock = clock
        self._opened_s = time.monotonic()
        self._base_s = self._believed_clock()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def database(self) -> Database:
        """Return the database, for tables that are others' business (journal.py)."""
        return self._database

    def transaction(self) -> AbstractContextManager[None]:
        """Return a context whose block is one transaction."""
        return self._database.transaction()

    def now_s(self) -> float:
        """Return the store's clock (s since 1970): never backwards, a week at most ahead of the last one."""
        return self._base_s + (time.monotonic() - self._opened_s)

    def add(self, example: Example, source: Source) -> Outcome:
        """Insert a labelled example, or correct the label of the same text; DataError without a label."""
        if example.label is None:
            raise DataError("no label", where=f"{source.file}:{source.line}")
        key = example_key(example.text, example.text_pair)
        known = self._database.row("SELECT id, label FROM examples WHERE key = ?", (key,))
        if known is None:
            text, pair, label = example.text, example.text_pair, example.label
            side, change = is_held_out(key, self.held_out_share), self._next("change")
            size, now = len(text.encode()) + len((pair or "").encode()), self.now_s()
            self._database.run(
                "INSERT INTO examples"
                " (key, text, text_pair, label, held_out, change, file, line, bytes, received_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (key, text, pair, label, side, change, source.file, source.line, size, now),
            )
            return "new"
        if known[1] == example.label:
            self._database.run("UPDATE examples SET received_s = ? WHERE id = ?", (self.now_s(), known[0]))
            return "duplicate"
        self._database.run(
            "UPDATE examples SET label = ?, change = ?, corrections = corrections + 1, file = ?, line = ?,"
            " received_s = ? WHERE id = ?",
            (example.label, self._next("change"), source.file, source.line, self.now_s(), known[0]),
        )
        return "corrected"

    def examples(self, *, held_out: bool, up_to_change: int | None = None) -> Iterator[StoredExample]:
        """Yield the examples in use of one side of the split, the earliest change first."""
        query = (
            "SELECT text, text_pair, label, change, held_out, corrections, file, line, received_s"
            " FROM examples WHERE held_out = ? AND set_aside IS NULL AND change <= ? ORDER BY change"
        )
        limit = self.highest_change() if up_to_change is None else up_to_change
        for text, pair, label, change, side, corrections, file, line, received in self._database.rows(
            query, (held_out, limit)
        ):
            yield StoredExample(
                Example(text, pair, label), change, bool(side), corrections, Source(file, line), received
            )

    def highest_change(self) -> int:
        """Return the number of the last insertion or correction; 0 in an empty store."""
        return int(self._meta("change") or 0)

    def add_prediction(self, name: str, example: Example, prediction: str | None) -> None:
        """Remember an unlabelled text under the application's own `name` for it, until feedback arrives."""
        size = len(example.text.encode()) + len((example.text_pair or "").encode())
        self._database.run(
            "INSERT OR REPLACE INTO predictions (id, text, text_pair, prediction, bytes, received_s)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (name, example.text, example.text_pair, prediction, size, self.now_s()),
        )

    def add_feedback(
        self, name: str, source: Source, *, label: str | None = None, correct: bool | None = None
    ) -> Outcome | Literal["noted"]:
        """Label a prediction by `label`, or by itself where it was `correct`; else note it as wrong.

        Raises DataError when no prediction has that name, or when it has no prediction to call correct.
        """
        where = f"{source.file}:{source.line}"
        found = self._database.row("SELECT text, text_pair, prediction FROM predictions WHERE id = ?", (name,))
        if found is None:
            raise DataError(f"no prediction with the id '{name[:60]}' waits for feedback", where=where)
        text, pair, prediction = found
        if label is None and correct:
            label = prediction
            if label is None:
                raise DataError("feedback 'correct', but no prediction was given with the text", where=where)
        if label is None:
            self._database.run("UPDATE predictions SET feedback = 'wrong' WHERE id = ?", (name,))
            return "noted"
        self._database.run("DELETE FROM predictions WHERE id = ?", (name,))
        return self.add(Example(text, pair, label), source)

    def waiting_predictions(self, limit: int = 100) -> list[tuple[str, Example, str | None]]:
        """Return name, text and prediction of those that wait for a label, the wrong ones first."""
        query = (
            "SELECT id, text, text_pair, prediction FROM predictions ORDER BY feedback IS NULL, received_s, id LIMIT ?"
        )
        rows = self._database.rows(query, (limit,))
        return [(name, Example(text, pair), prediction) for name, text, pair, prediction in rows]

    def quarantine(self, source: Source, reason: str, line: bytes, length: int | None = None) -> None:
        """Keep the beginning of a line that cannot be used; `length` is that of the whole line."""
        size = len(line) if length is None else length
        self._database.run(
            "INSERT INTO quarantine (file, line, reason, excerpt, bytes, received_s) VALUES (?, ?, ?, ?, ?, ?)",
            (source.file, source.line, reason, line[:EXCERPT_BYTES], size, self.now_s()),
        )

    def quarantined(self, limit: int = 100) -> list[tuple[Source, str, bytes]]:
        """Return place, reason and beginning of the lines in quarantine, the newest first."""
        query = "SELECT file, line, reason, excerpt FROM quarantine ORDER BY id DESC LIMIT ?"
        rows = self._database.rows(query, (limit,))
        return [(Source(file, line), reason, bytes(excerpt)) for file, line, reason, excerpt in rows]

    def set_aside(self, after_change: int, up_to_change: int, reason: str) -> int:
        """Take the examples of a range of changes out of use; return how many."""
        return self._database.run(
            "UPDATE examples SET set_aside = ? WHERE change > ? AND change <= ? AND set_aside IS NULL",
            (reason, after_change, up_to_change),
        )

    def bring_back(self) -> int:
        """Put every example that was set aside back into use, as new; return how many."""
        query = "SELECT id FROM examples WHERE set_aside IS NOT NULL"
        names = [row[0] for row in self._database.rows(query)]
        for name in names:
            change = self._next("change")
            self._database.run("UPDATE examples SET set_aside = NULL, change = ? WHERE id = ?", (change, name))
        return len(names)

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Take over examples read from another database, the earliest first; return how many are new."""
        before = self.counts().examples + self.counts().set_aside
        with self.transaction():
            for row in rows:
                example = Example(row["text"], row["text_pair"], row["label"])
                if self.add(example, Source(row["file"], row["line"])) == "duplicate":
                    continue
                key = example_key(example.text, example.text_pair)
                self._database.run(
                    "UPDATE examples SET corrections = ?, received_s = min(?, received_s), set_aside = ? WHERE key = ?",
                    (row["corrections"], row["received_s"], row["set_aside"], key),
                )
        return self.counts().examples + self.counts().set_aside - before

    def backup(self, path: Path) -> None:
        """Write a copy of the store that a damaged one is recovered from; it appears in one step."""
        self._database.copy_to(path)

    def replace_replay(self, samples: Iterable[Example], base: Iterable[Example] | None = None) -> int:
        """Replace the host's samples (opt-in) by the labelled ones of these; return how many.

        Those of `base` measure forgetting and all others train; without `base`, half of the others measure.
        """
        self._database.run("DELETE FROM replay")
        share = 0.5 if base is None else 0.0
        for side, held_out_share in ((samples, share), (base or (), 1.0)):  # a text on both sides only measures
            for sample in side:
                if sample.label is None:
                    continue
                key = example_key(sample.text, sample.text_pair)
                self._database.run(
                    "INSERT OR REPLACE INTO replay (key, text, text_pair, label, held_out) VALUES (?, ?, ?, ?, ?)",
                    (key, sample.text, sample.text_pair, sample.label, is_held_out(key, held_out_share)),
                )
        return self._count("SELECT count(*) FROM replay")

    def replay(self, *, held_out: bool) -> Iterator[Example]:
        """Yield the host's samples that train, or those that measure forgetting."""
        query = "SELECT text, text_pair, label FROM replay WHERE held_out = ? ORDER BY key"
        for text, pair, label in self._database.rows(query, (held_out,)):
            yield Example(text, pair, label)

    def spool_position(self, name: str) -> tuple[int, int, bool] | None:
        """Return bytes and lines of a spool file that are committed, and whether that is all of it."""
        found = self._database.row("SELECT position, line, done FROM spool_files WHERE name = ?", (name,))
        return None if found is None else (int(found[0]), int(found[1]), bool(found[2]))

    def set_spool_position(self, name: str, position: int, line: int, *, done: bool) -> None:
        """Note how far a spool file is committed; belongs in the transaction that commits it."""
        self._database.run(
            "INSERT OR REPLACE INTO spool_files (name, position, line, done) VALUES (?, ?, ?, ?)",
            (name, position, line, done),
        )

    def spool_names(self) -> list[str]:
        """Return the spool files the store knows."""
        return [row[0] for row in self._database.rows("SELECT name FROM spool_files ORDER BY name")]

    def forget_spool_file(self, name: str) -> None:
        """Forget a spool file; only once its removal from the directory is durable."""
        self._database.run("DELETE FROM spool_files WHERE name = ?", (name,))

    def enforce(self, limits: Retention) -> int:
        """Remove what exceeds the limits, the earliest first; return how many examples."""
        with self.transaction():
            removed = remove_examples(self._database, limits, self.now_s())
            remove_predictions(self._database, limits, self.now_s())
            if let_go := remove_quarantined(self._database):
                self._set_meta("quarantine_let_go", int(self._meta("quarantine_let_go") or 0) + let_go)
            self._set_meta("clock_s", self.now_s())
        self._database.shrink()
        return removed

    def counts(self, *, since_change: int = 0) -> StoreCounts:
        """Return what `status` tells; new examples are those with a change above `since_change`."""
        used = "FROM examples WHERE set_aside IS NULL"
        return StoreCounts(
            examples=self._count(f"SELECT count(*) {used}"),
            held_out=self._count(f"SELECT count(*) {used} AND held_out = 1"),
            new_examples=self._count(f"SELECT count(*) {used} AND change > ?", since_change),
            labels=self._count(f"SELECT count(DISTINCT label) {used}"),
            set_aside=self._count("SELECT count(*) FROM examples WHERE set_aside IS NOT NULL"),
            predictions=self._count("SELECT count(*) FROM predictions"),
            quarantined=self._count("SELECT count(*) FROM quarantine"),
            quarantine_let_go=int(self._meta("quarantine_let_go") or 0),
            replay=self._count("SELECT count(*) FROM replay"),
            highest_change=self.highest_change(),
        )

    def _believed_clock(self) -> float:
        """Advance the store's clock to the system's, never backwards and never by more than a week."""
        system, last = self._clock(), self._meta("clock_s")
        believed = system if last is None else min(max(system, float(last)), float(last) + CLOCK_JUMP_S)
        with self.transaction():
            self._set_meta("clock_s", believed)
        return believed

    def _next(self, counter: str) -> int:
        """Return the next number of a counter that survives deletions."""
        number = int(self._meta(counter) or 0) + 1
        self._set_meta(counter, number)
        return number

    def _count(self, query: str, *values: object) -> int:
        found = self._database.row(query, values)
        return int(found[0]) if found else 0

    def _meta(self, name: str) -> float | str | None:
        found = self._database.row("SELECT value FROM meta WHERE name = ?", (name,))
        return None if found is None else found[0]

    def _set_meta(self, name: str, value: float | str) -> None:
        self._database.run("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value))
