"""How somebody asks for a cycle at once: a file in the spool, which the daemon takes away, and an answer for all.

    SPOOL/adapt-now       the asker's own id, at most 100 letters; appears by one rename
    STATE/answer.json     {id, looked_s, cycle, deferred} after the look that it caused

Nothing is skipped for it: the daemon looks now instead of later. Standard library only, for a bridge asks as well.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from edge_far.disk.durability import fsync
from edge_far.errors import InputMissing, StorageError
from edge_far.json_file import Count, Damaged, Within, read_document
from edge_far.storage import storage_error, write_json

__all__ = ["ANSWER_MODE", "REQUEST", "LookAnswer", "Requests", "ask", "read_answer", "take_back"]

REQUEST = "adapt-now"
REQUEST_MODE = 0o640  # the directory's group is the daemon's
ANSWER_MODE = 0o644
MOST_BYTES = 100
_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class LookAnswer:
    """What came of a look: the cycle that began or went on, or why none did; s since 1970."""

    id: str
    looked_s: Annotated[float, Within(0, 1e12)]
    cycle: Count | None
    deferred: str | None


class Requests:
    """The daemon's side: the requests of one spool, answered in one file."""

    def __init__(self, spool: Path, answer: Path) -> None:
        self._request = spool / REQUEST
        self._answer = answer
        self._asked: str | None = None
        self._stuck = False

    @property
    def waiting(self) -> bool:
        """Return whether somebody has asked since the last look."""
        try:
            return not self._stuck and stat.S_ISREG(self._request.lstat().st_mode)
        except OSError:
            return False

    def take(self) -> None:
        """Take the request away, if there is one: the look that begins now is its answer."""
        if not self.waiting:
            return
        try:
            self._asked = _read(self._request)
            self._request.unlink()
        except FileNotFoundError:
            self._asked = None  # taken back
        except OSError:
            self._stuck = True  # what cannot be taken away must not be asked for ever

    def answer(self, *, cycle: int | None = None, deferred: str | None = None) -> None:
        """Tell whoever asked what came of it; nothing where nobody did."""
        id, self._asked = self._asked, None
        if id is None:
            return
        with suppress(StorageError, OSError):
            write_json(self._answer, asdict(LookAnswer(id, time.time(), cycle, deferred)))
            self._answer.chmod(ANSWER_MODE)


def ask(spool: Path) -> str:
    """Ask for a look now; return the id that the answer will bear. Raises InputMissing (66), StorageError (74)."""
    id = secrets.token_hex(8)
    temporary = spool / f".{REQUEST}-{id}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, REQUEST_MODE)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), REQUEST_MODE)
            file.write(id.encode())
            file.flush()
            fsync(file.fileno(), spool)
        temporary.replace(spool / REQUEST)
    except FileNotFoundError as error:
        hint = "start the daemon once, or name another directory"
        raise InputMissing("spool directory does not exist", where=str(spool), hint=hint) from error
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise storage_error(error, spool) from error
    return id


def take_back(spool: Path, id: str) -> bool:
    """Remove a request that nobody has taken; return whether it was still there."""
    request = spool / REQUEST
    with suppress(OSError):
        if _read(request) == id:
            request.unlink()
            return True
    return False


def read_answer(path: Path, id: str) -> LookAnswer | None:
    """Return the answer to a request, None where there is none yet."""
    with suppress(OSError, Damaged):
        answer: LookAnswer = read_document(path, LookAnswer)
        if answer.id == id:
            return answer
    return None


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(MOST_BYTES + 1).decode("ascii", "replace").strip()
    return text if _ID.fullmatch(text) else "unnamed"
