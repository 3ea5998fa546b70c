"""The desk: a directory through which a SuperNode's user asks the device's own user for a round, and is answered.

    DESK/order.safetensors    learners to begin with; its metadata: id, and the order as JSON
    DESK/taken                the id of the order that somebody works on
    DESK/answer.safetensors   the learners after training, or none; its metadata: id, and the answer as JSON

Each appears by one rename. The two users share a group, nothing else: who speaks with the network sees no example, and
who sees the examples has no network. Both sides distrust what they find: sizes are bounded, links are not followed.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from safetensors import safe_open

from edge_far.bundles.arrays import read_arrays, write_arrays
from edge_far.disk.directory_moves import fsync_directory, temporary_sibling
from edge_far.errors import BundleError, InputMissing
from edge_far.fleet.exchange import Arrays
from edge_far.fleet.terms import Answer, Order, Refused
from edge_far.json_file import Damaged, Within, decode, parse_json
from edge_far.storage import storage_error, write_atomically

__all__ = ["DEFAULT_DESK", "Desk", "Ticket"]

DEFAULT_DESK = Path("/var/spool/edge-far-fleet")
ORDER, TAKEN, ANSWER = "order.safetensors", "taken", "answer.safetensors"
FILE_MODE = 0o640
MOST_BYTES = 4 << 30
MOST_TEXT = 100_000
Id = Annotated[str, Within(1, 100)]


@dataclass(frozen=True)
class Ticket:
    """An order that lies on the desk, with the id that its answer will bear."""

    id: Id
    order: Order


class Desk:
    """One desk, for either side."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def must_exist(self) -> None:
        """Raise InputMissing (66) where there is no such directory, or none for this user."""
        try:
            found = stat.S_ISDIR(self.root.stat().st_mode)
        except PermissionError:
            found = True
        except OSError:
            found = False
        if not found:
            hint = f"'deploy/install.sh --fleet' makes it, or: mkdir -m 2770 {self.root}"
            raise InputMissing("no desk here", where=str(self.root), hint=hint)
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            hint = "run it as root, or as a member of the directory's group"
            raise InputMissing("the desk is not for this user", where=str(self.root), hint=hint)

    # --- who asks -------------------------------------------------------------------------------------------------

    def place(self, order: Order, learners: Arrays) -> str:
        """Lay an order down, in the place of an earlier one; return its id. Raises StorageError (74)."""
        id = secrets.token_hex(8)
        self._lay(ORDER, learners, {"id": id, "order": json.dumps(order.document())})
        return id

    def is_taken(self, id: str) -> bool:
        """Return whether somebody works on an order, or has."""
        with suppress(OSError):
            return self._text(TAKEN) == id
        return False

    def answer(self, id: str) -> tuple[Answer, dict[str, np.ndarray]] | None:
        """Return the answer to an order, None where there is none yet; raises Refused for one beyond the terms."""
        path = self.root / ANSWER
        try:
            said = _metadata(path)
            if said.get("id") != id:
                return None
            return Answer.of(_document(said.get("answer", ""))), read_arrays(path)
        except (OSError, BundleError):
            return None

    def withdraw(self, id: str) -> None:
        """Take an order back that nobody waits for any more."""
        with suppress(OSError, BundleError):
            if _metadata(self.root / ORDER).get("id") == id:
                (self.root / ORDER).unlink()

    # --- who works ------------------------------------------------------------------------------------------------

    def waiting(self) -> Ticket | None:
        """Return the order on the desk, None where there is none; one that cannot be read is swept away."""
        path = self.root / ORDER
        if not path.exists() and not path.is_symlink():
            return None
        id = "unreadable"
        try:
            said = _metadata(path)
            id = decode(Id, said.get("id"), "id")
            return Ticket(id, Order.of(_document(said.get("order", ""))))
        except FileNotFoundError:
            return None
        except (OSError, BundleError, Damaged, Refused):
            with suppress(OSError):
                path.unlink()
            self.lay_answer(id, Answer.declined("order"), {})
            return None

    def take(self, ticket: Ticket, learners: Path) -> bool:
        """Copy an order's learners to a file of one's own and say that it is taken; False where it is gone."""
        path = self.root / ORDER
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                content = file.read(MOST_BYTES)
        except OSError:
            return False
        write_atomically(learners, content)
        if _metadata(learners).get("id") != ticket.id:
            return False
        self._write_text(TAKEN, ticket.id)
        return True

    def lay_answer(self, id: str, answer: Answer, learners: Arrays) -> None:
        """Lay the answer down and sweep the order away; raises StorageError (74)."""
        self._lay(ANSWER, learners, {"id": id, "answer": json.dumps(asdict(answer))})
        self.withdraw(id)

    # --- who looks ------------------------------------------------------------------------------------------------

    def has_order(self) -> bool:
        """Return whether an order lies here."""
        return (self.root / ORDER).is_file()

    def last_answer(self) -> Answer | None:
        """Return what was answered last, None where nothing was, or it cannot be read by this user."""
        try:
            return Answer.of(_document(_metadata(self.root / ANSWER).get("answer", "")))
        except (OSError, BundleError):
            return None

    # --- files ----------------------------------------------------------------------------------------------------

    def _lay(self, name: str, arrays: Arrays, metadata: dict[str, str]) -> None:
        path = self.root / name
        temporary = temporary_sibling(path)
        write_arrays(temporary, arrays, metadata)
        self._show(temporary, path)

    def _write_text(self, name: str, text: str) -> None:
        path = self.root / name
        temporary = temporary_sibling(path)
        write_atomically(temporary, text.encode())
        self._show(temporary, path)

    def _show(self, temporary: Path, path: Path) -> None:
        try:
            temporary.chmod(FILE_MODE)
            temporary.replace(path)
            fsync_directory(self.root)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise storage_error(error, path) from error

    def _text(self, name: str) -> str:
        descriptor = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(MOST_TEXT).decode("ascii", "replace")


def _metadata(path: Path) -> dict[str, str]:
    """Return the texts beside a file's arrays; raises OSError, BundleError."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
        raise BundleError("is not a file of a desk", where=str(path))
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # safetensors raises its own kind
        raise BundleError("is not a safetensors file", where=str(path)) from error


def _document(text: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = decode(dict[str, Any], parse_json(text[:MOST_TEXT].encode()))
    except Damaged as error:
        raise Refused("order", str(error)) from error
    return document
