"""The model of this device in five lines: ask it, correct it; a new release is taken up between two calls.

    from edge_far import Model
    model = Model("/run/edgefar/model/current")
    answer = model.predict("it is far too bright in here")
    print(answer.label, answer.probability)
    model.feedback(answer.id, "light_dim")        # or True, where the label was right

The directory is looked at before every call: a call of the system, some microseconds. Where it is another, the thread
that sees it first verifies and loads the new release, and the others go on with the old one until it is there.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.application.answer import Answer, Asked, Memory
from edge_far.application.loaded_release import LoadedRelease
from edge_far.daemon.intake import spool as spool_files
from edge_far.device.board.cpu import cpu_share
from edge_far.errors import DataError, InputMissing, UsageError
from edge_far.quoting import quoted
from edge_far.storage import named_path
from edge_far.tasks.interface import Task
from edge_far.texts.reading.problems import RecordProblem

__all__ = ["Model"]

LOG = logging.getLogger("edge_far.application")
REMEMBERED = 1000
MOST_THREADS = 4
ATTEMPTS = 5  # to load while the directory changes
TRY_AGAIN_S = 60.0  # what failed for another reason than its content: memory, open files

Identity = tuple[str, int, int]  # where the path leads, and the directory's device and inode
NOWHERE: Identity = ("", 0, 0)


@dataclass(frozen=True)
class _Refused:
    """A release that could not be taken up, and when (on the monotonic clock) it is tried again."""

    identity: Identity
    until_s: float


class Model:
    """A released model that follows its directory; every method may be called from any thread."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        spool: str | os.PathLike[str] = spool_files.DEFAULT_SPOOL,
        threads: int | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        """Load what `directory` holds: the service's link `current`, a release, or what `edge-far merge` wrote.

        `threads` of ONNX Runtime: as many as this process may use, at most 4, where none are named. `remembered` is
        the number of answers that `feedback` can correct. Raises InputMissing (66) for a missing directory, DataError
        (65) for a damaged one, StorageError (74), UsageError (64) for an empty path or a count that is none.
        """
        self._path = named_path(directory, "directory")
        self._spool = named_path(spool, "spool")
        usual = min(MOST_THREADS, cpu_share().most_threads)
        self._threads = usual if threads is None else _count(threads, "threads", 1)
        self._memory = Memory(_count(remembered, "remembered", 0))
        self._loading = threading.Lock()
        self._refused = _Refused(NOWHERE, -math.inf)
        self._identity, self._release = self._first()

    @property
    def release(self) -> str:
        """Return the name of the release that answered last, or will answer first."""
        return self._release.name

    @property
    def task(self) -> Task:
        """Return what that release answers (edge_far/tasks/interface.py)."""
        return self._release.task

    def predict(self, text: str, pair: str | None = None) -> Answer:
        """Return the answer for a text, or for a pair of texts; raises DataError (65) for one that cannot be read."""
        release = self._latest()
        told = release.answer(text, pair)
        label = _frozen(release.task.label_of(told))
        probability = _frozen(told.get("probability", told.get("probabilities")))
        answer = Answer(label, probability, secrets.token_hex(12), release.name)
        self._memory.keep(answer.id, Asked(text, pair, label))
        return answer

    def feedback(self, id: str, label: Any) -> Path:
        """Hand the text of an answer over to the daemon with its right label; True says that the answer was right.

        Returns the file in the spool once it is durable. A later correction of the same text wins. Raises DataError
        (65) for an id that is not remembered and for a label of another form than the task's, InputMissing (66) for a
        missing spool, StorageError (74).
        """
        asked = self._memory.find(id)
        if asked is None:
            hint = f"the last {REMEMBERED} are, where Model(remembered=...) says nothing else"
            raise DataError(f"no answer with the id {str(id)[:60]!r} is remembered", hint=hint)
        right = self._checked(asked.label if label is True else label, asked)
        return spool_files.add(asked.text, right, text_pair=asked.pair, id=id, spool=self._spool)

    def _checked(self, label: Any, asked: Asked) -> Any:
        """Return a label as a record holds it."""
        form = self._release.task.form
        try:
            if label is False:
                raise RecordProblem("feedback is a label or True", "name the label that is right")
            read = form.read(list(label) if isinstance(label, tuple) else label)
            if read is not None and (wrong := form.misfit(read, asked.text, asked.pair)):
                raise wrong
        except RecordProblem as problem:
            raise DataError(problem.message, hint=problem.hint) from problem
        if read is None:
            raise DataError("there is no label", hint="name the label that is right")
        return form.value(read)

    # --- following the directory ------------------------------------------------------------------------------------

    def _latest(self) -> LoadedRelease:
        """Return the release to ask now."""
        if self._is_new(self._where()) and self._loading.acquire(blocking=False):
            try:
                self._take_up()
            finally:
                self._loading.release()
        return self._release

    def _first(self) -> tuple[Identity, LoadedRelease]:
        """Load what is there at the start; what fails while the directory changes is tried again."""
        for attempt in range(ATTEMPTS):
            found = self._where()
            if found == NOWHERE:
                hint = "name the service's .../model/current, a release, or what 'edge-far merge' wrote"
                raise InputMissing("no directory of a model", where=str(self._path), hint=hint)
            try:
                return found, LoadedRelease(Path(found[0]), self._threads)
            except Exception:
                if attempt == ATTEMPTS - 1 or self._where() == found:
                    raise
        raise AssertionError("unreachable")

    def _take_up(self) -> None:
        """Load what the directory is now; where that fails and it did not change meanwhile, stay with the old one."""
        for _ in range(ATTEMPTS):
            found = self._where()
            if not self._is_new(found):
                return
            try:
                if found == NOWHERE:
                    raise InputMissing("leads nowhere", where=str(self._path))
                release = LoadedRelease(Path(found[0]), self._threads)
            except Exception as error:
                if self._where() == found:
                    self._refuse(found, error)
                    return
            else:
                self._release, self._identity = release, found
                LOG.info("release %s is in use", release.name)
                return

    def _refuse(self, found: Identity, error: Exception) -> None:
        """Stay with the release of before, and tell of it once."""
        if found != self._refused.identity or self._refused.until_s == -math.inf:
            LOG.warning("release %s stays in use; the new one cannot be: %s", self._release.name, error)
        until_s = math.inf if isinstance(error, DataError) else time.monotonic() + TRY_AGAIN_S
        self._refused = _Refused(found, until_s)

    def _is_new(self, found: Identity) -> bool:
        if found == self._identity:
            return False
        refused = self._refused
        return found != refused.identity or time.monotonic() >= refused.until_s

    def _where(self) -> Identity:
        """Return which directory this is now, NOWHERE where there is none."""
        try:
            path = os.path.realpath(self._path, strict=True)
            seen = os.stat(path)  # noqa: PTH116  # as cheap as can be: it is called before every prediction
        except OSError:
            return NOWHERE
        return path, seen.st_dev, seen.st_ino


def _count(value: Any, where: str, least: int) -> int:
    """Return a whole number that a caller gave; UsageError (64) where it is none, or less than `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        message = f"must be a whole number from {least} on, not {quoted(str(value))}"
        raise UsageError(message, where=where, hint="leave it out for the usual one")
    return value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
