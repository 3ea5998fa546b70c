"""Moves what waits in the spool into the store, exactly once, whatever happens to the power.

1. Claim: each ready file is renamed into `.ingest`, a directory of the daemon's own, under a number never
   used twice, in the order of their arrival (arrival.py); nobody else can change or swap it there.
2. Read: batches of lines; one transaction holds a batch, its quarantined lines and the new position in the
   file.
3. Finish: the position is marked done; the file is renamed into `.kept`; the directory is fsynced; the position is
   forgotten. What is kept is removed when there is a second copy of the store (store/backup.py).
Anything but a regular file with one name goes to `.refused`, unread. docs/explain/adaptation.md has the table of
crashes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edge_far.daemon.intake.arrival import Waiting, dated_before, in_order, waiting_in
from edge_far.daemon.intake.records import Feedback, LabelledExample, Prediction, RecordError, RecordReader
from edge_far.daemon.intake.spool import is_ready
from edge_far.daemon.store.examples import EXCERPT_BYTES, Source, Store
from edge_far.daemon.store.kept import INGEST, KEPT, names_in, opened
from edge_far.disk.durability import fsync
from edge_far.errors import DataError
from edge_far.storage import storage_error
from edge_far.texts.data import Labels
from edge_far.texts.reading.lines import LINE_END_BYTES, MAX_LINE_BYTES, without_line_end

__all__ = ["IngestReport", "Ingestion"]

BATCH_LINES = 1000
BATCH_BYTES = 1 << 20
CLAIM_FILES = 1000
REFUSED = ".refused"
OPEN_SAFELY = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class IngestReport:
    """What one pass over the spool did; `problems` are sentences for `status`."""

    files: int = 0
    new: int = 0
    corrected: int = 0
    duplicates: int = 0
    predictions: int = 0
    feedback: int = 0
    quarantined: int = 0
    problems: list[str] = field(default_factory=list)

    def tell(self, problem: str) -> None:
        """Add a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)


class Ingestion:
    """The daemon's side of one spool directory.

    `labels` are as in texts/data.py. `tick` is called after every batch; what it raises ends the pass, and
    the next pass goes on from there.
    """

    def __init__(
        self,
        spool: Path,
        store: Store,
        *,
        labels: Labels = None,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = Path(spool)
        self._store = store
        self._records = RecordReader(labels)
        self._tick = tick

    def run(self) -> IngestReport:
        """Ingest everything that is ready; StorageError (74), ConfigError (78) for an unsafe directory."""
        report = IngestReport()
        self._looked_ns = _last_change(self._spool / INGEST)
        with self._directories():
            self._finish_interrupted()
            while True:
                for name in sorted(names_in(self._ingest)):
                    self._ingest_file(name, report)
                    self._tick()
                if not self._claim(report):
                    break
        return report

    @contextmanager
    def _directories(self) -> Iterator[None]:
        """Open the spool and its private directories, so that no name can lead elsewhere."""
        with opened(self._spool, INGEST, KEPT, REFUSED) as (self._top, self._ingest, self._kept, self._refused):
            self._fsync(self._top)
            yield

    def _finish_interrupted(self) -> None:
        """Keep files that were committed completely, and forget positions whose file is not here any more."""
        present = set(names_in(self._ingest))
        for name in self._store.spool_names():
            position = self._store.spool_position(name)
            if name not in present:
                self._fsync(self._kept)  # the rename may not be durable yet
                self._store.forget_spool_file(name)
            elif position is not None and position[2]:
                self._keep(name)

    def _claim(self, report: IngestReport) -> int:
        """Move ready files into `.ingest`, the first to arrive first; return how many."""
        claimed: list[Waiting] = []
        number = self._next_number()
        now_ns = time.time_ns()
        for waiting in in_order(waiting_in(self._top, filter(is_ready, names_in(self._top))), now_ns):
            name = waiting.name
            if len(claimed) == CLAIM_FILES:
                break
            try:
                descriptor = os.open(name, OPEN_SAFELY, dir_fd=self._top)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue  # taken back by the application
                if error.errno in (errno.EACCES, errno.EPERM):
                    shown = _safe_name(name)
                    report.tell(f"spool file '{shown}' may not be read: give it mode 0640")
                    continue
                unsafe = "is a symbolic link or a device"
            else:
                with os.fdopen(descriptor, "rb") as file:
                    unsafe = _why_unsafe(file) or ""
                    if not unsafe:
                        self._fsync(file.fileno())
            target = f"{number:012d}-{_safe_name(name)}"
            number += 1
            if unsafe:
                report.tell(f"spool file '{_safe_name(name)}' {unsafe}: moved to .refused/{target}")
            directory = self._refused if unsafe else self._ingest
            self._move(name, self._top, target, directory)
            self._fsync(directory)  # each by itself: a later file found here without an earlier one would win
            claimed.append(waiting)
        if claimed:
            self._fsync(self._top)
        if doubtful := dated_before(claimed, self._looked_ns, now_ns):
            report.tell(
                f"the clock was set back while {len(claimed)} files came into the spool; '{_safe_name(doubtful.name)}' "
                "is dated before the last look, and may be taken for earlier than it was"
            )
        return len(claimed)

    def _next_number(self) -> int:
        """Return a number above all that a file or a position still bears."""
        used = [*names_in(self._ingest), *names_in(self._kept), *names_in(self._refused), *self._store.spool_names()]
        return 1 + max((int(name[:12]) for name in used if re.match(r"\d{12}-", name)), default=0)

    def _ingest_file(self, name: str, report: IngestReport) -> None:
        try:
            file = os.fdopen(os.open(name, OPEN_SAFELY, dir_fd=self._ingest), "rb")
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._move(name, self._ingest, name, self._refused)
                return
            raise storage_error(error, self._spool / ".ingest" / name) from error
        with file:
            if unsafe := _why_unsafe(file):
                report.tell(f"spool file '{name}' {unsafe}: moved to .refused")
                self._move(name, self._ingest, name, self._refused)
                return
            complete = self._read(name, file, report)
        if complete:
            self._keep(name)
            report.files += 1

    def _read(self, name: str, file: BinaryIO, report: IngestReport) -> bool:
        """Commit the rest of a file; return whether it could be read to its end."""
        position, line, done = self._store.spool_position(name) or (0, 0, False)
        shown = name[13:]
        try:
            file.seek(position)
            while not done:
                batch = _batch(file)
                with self._store.transaction():
                    for raw, length in batch:
                        line += 1
                        self._apply(raw, length, Source(shown, line), report)
                    done = not batch
                    self._store.set_spool_position(name, file.tell(), line, done=done)
                self._tick()
        except OSError as error:
            report.tell(f"spool file '{shown}' cannot be read on from line {line + 1}: {error.strerror}")
            return False
        return True

    def _apply(self, raw: bytes, length: int, source: Source, report: IngestReport) -> None:
        try:
            if length > MAX_LINE_BYTES:
                raise RecordError(f"line of {length} bytes is longer than {MAX_LINE_BYTES}")
            record = self._records.read(raw)
            outcome = "empty"
            if isinstance(record, LabelledExample):
                outcome = self._store.add(record.example, source)
            elif isinstance(record, Prediction):
                self._store.add_prediction(record.id, record.example, record.prediction)
                report.predictions += 1
            elif isinstance(record, Feedback):
                report.feedback += 1
                outcome = self._store.add_feedback(record.id, source, label=record.label, correct=record.correct)
        except (RecordError, DataError) as error:
            reason = error.message if isinstance(error, DataError) else str(error)
            self._store.quarantine(source, reason, raw, length)
            report.quarantined += 1
            return
        report.new += outcome == "new"
        report.corrected += outcome == "corrected"
        report.duplicates += outcome == "duplicate"

    def _keep(self, name: str) -> None:
        """Put a file aside whose content is committed, and only then forget its position."""
        self._move(name, self._ingest, name, self._kept)
        self._fsync(self._kept)
        self._store.forget_spool_file(name)

    def _move(self, name: str, source: int, target: str, directory: int) -> None:
        try:
            os.rename(name, target, src_dir_fd=source, dst_dir_fd=directory)
        except FileNotFoundError:
            pass  # taken back by the application
        except OSError as error:
            raise storage_error(error, self._spool / _safe_name(name)) from error

    def _fsync(self, descriptor: int) -> None:
        try:
            fsync(descriptor, self._spool)
        except OSError as error:
            raise storage_error(error, self._spool) from error


def _why_unsafe(file: BinaryIO) -> str | None:
    """Return why an open file must not be read, or None."""
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if found.st_nlink != 1:
        return f"has {found.st_nlink} hard links"
    return None


def _last_change(directory: Path) -> int | None:
    """Return when the last file was taken up or kept (ns since 1970), None where that never was."""
    try:
        return directory.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return None


def _safe_name(name: str) -> str:
    """Return the name with letters that are harmless in a message, a path and a database."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name)[-200:]


def _batch(file: BinaryIO) -> list[tuple[bytes, int]]:
    """Read some lines and their lengths without the line end; of too long a line only the beginning."""
    batch: list[tuple[bytes, int]] = []
    size = 0
    while len(batch) < BATCH_LINES and size < BATCH_BYTES and (raw := file.readline(MAX_LINE_BYTES + LINE_END_BYTES)):
        size += len(raw)
        content = without_line_end(raw)
        rest = _skip_line(file) if len(content) > MAX_LINE_BYTES and not raw.endswith(b"\n") else 0
        batch.append((content[:EXCERPT_BYTES] if rest else content, len(content) + rest))
    return batch


def _skip_line(file: BinaryIO) -> int:
    """Read up to the end of the line in bounded pieces; return the bytes before the line end."""
    skipped = 0
    while piece := file.readline(MAX_LINE_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            return skipped - 1
    return skipped
