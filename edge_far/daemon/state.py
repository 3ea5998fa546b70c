"""The state directory of one device: its paths, its modes, and the locks that keep a second one out.

Refuses to know what is in the files. The locks are the kernel's (flock), so they end with the process that holds them,
however that ended. `lock` is held while somebody works here, a daemon's look or a fleet's round; a child inherits it,
so that nobody starts beside a dead one's trainer. `waiting` is held by a daemon that looks by itself while it lives.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edge_far.disk.directory_moves import fsync_directory
from edge_far.errors import Deferred, InputMissing
from edge_far.storage import remove_leftovers, storage_error

__all__ = ["DEFAULT_STATE", "CycleDirectory", "StateDirectory"]

DEFAULT_STATE = Path("/var/lib/edge-far")
ROOT_MODE = 0o711  # others may pass through to model/ and metrics/, and see nothing else
SPOOL_MODE = 0o770
LOCK_WAIT_S = 5.0


@dataclass(frozen=True)
class CycleDirectory:
    """The paths below the directory of the cycle under way."""

    root: Path

    @property
    def train(self) -> Path:
        """Return the examples to train on, the host's samples included."""
        return self.root / "train.jsonl"

    @property
    def held_out(self) -> Path:
        """Return the device's held-out examples."""
        return self.root / "held_out.jsonl"

    @property
    def base(self) -> Path:
        """Return the host's samples that measure forgetting."""
        return self.root / "base.jsonl"

    @property
    def control(self) -> Path:
        """Return the file that tells the trainer to run, pause or stop."""
        return self.root / "control"

    @property
    def left_out(self) -> Path:
        """Return which examples the trainer could not read, and why."""
        return self.root / "left_out.json"

    @property
    def labels(self) -> Path:
        """Return the labels of all outputs, where some took places of the bundle's."""
        return self.root / "labels.json"

    @property
    def offered(self) -> Path:
        """Return the learners that a fleet offered, where the cycle is about them."""
        return self.root / "offered.safetensors"

    @property
    def candidate(self) -> Path:
        """Return the directory that becomes a release."""
        return self.root / "candidate"

    @property
    def decision(self) -> Path:
        """Return the gate's decision."""
        return self.root / "decision.json"

    def run(self, attempt: int) -> Path:
        """Return the trainer's run directory."""
        return self.root / f"run-{attempt}"

    def output(self, child: str) -> Path:
        """Return where a child's output goes, without suffix."""
        return self.root / child


@dataclass(frozen=True)
class StateDirectory:
    """The paths below one state directory."""

    root: Path

    @property
    def store(self) -> Path:
        """Return the examples' database."""
        return self.root / "store.sqlite3"

    @property
    def spool(self) -> Path:
        """Return the spool directory, where none elsewhere is named."""
        return self.root / "spool"

    @property
    def cache(self) -> Path:
        """Return the directory of what the frozen blocks make of the examples."""
        return self.root / "cache"

    @property
    def cycle(self) -> CycleDirectory:
        """Return the directory of the cycle under way."""
        return CycleDirectory(self.root / "cycle")

    @property
    def round(self) -> Path:
        """Return the directory of a fleet's round under way (fleet/worker.py)."""
        return self.root / "round"

    @property
    def offer(self) -> Path:
        """Return the directory of the learners that a fleet offers, until a cycle has judged them."""
        return self.root / "offer"

    @property
    def factory(self) -> Path:
        """Return the directory in which the factory release is made."""
        return self.root / "factory"

    @property
    def model(self) -> Path:
        """Return the directory of the releases, which the application reads."""
        return self.root / "model"

    @property
    def status(self) -> Path:
        """Return the last status, for everybody."""
        return self.root / "status.json"

    @property
    def answer(self) -> Path:
        """Return the answer to whoever asked for a cycle last, for everybody."""
        return self.root / "answer.json"

    @property
    def notes(self) -> Path:
        """Return the notes that `status` tells."""
        return self.root / "notes.json"

    @property
    def metrics(self) -> Path:
        """Return the text file for Prometheus."""
        return self.root / "metrics" / "edge_far.prom"

    def prepare(self) -> None:
        """Make the directory and its spool; StorageError (74)."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if stat.S_IMODE(self.root.stat().st_mode) != ROOT_MODE:
                self.root.chmod(ROOT_MODE)
            if not self.spool.is_dir():
                self.spool.mkdir()
                self.spool.chmod(SPOOL_MODE)
            self.metrics.parent.mkdir(exist_ok=True)
            self.metrics.parent.chmod(0o755)
            fsync_directory(self.root)
        except OSError as error:
            raise storage_error(error, self.root) from error

    def clear_leftovers(self) -> None:
        """Remove what a killed daemon left; under the lock only, for another's file is no leftover; StorageError."""
        for path in (
            self.cycle.root,
            self.round,
            self.offer,
            self.factory,
            self.status,
            self.answer,
            self.notes,
            self.metrics,
        ):
            remove_leftovers(path)

    def must_exist(self) -> None:
        """Raise InputMissing (66) unless a daemon has been here."""
        try:
            found = self.root.is_dir()
            allowed = not found or os.access(self.root, os.R_OK | os.X_OK)
        except PermissionError:
            found, allowed = True, False
        if not allowed:
            hint = "run it with sudo; everybody may read /run/edgefar/status.json"
            raise InputMissing("not allowed to look into the state directory", where=str(self.root), hint=hint)
        if found and not self.store.exists() and (self.root / "run.json").exists():  # of edge-far train
            found = False
        if not found:
            hint = "run 'edge-far daemon --once' first, or name another directory with --state"
            raise InputMissing("no state directory here", where=str(self.root), hint=hint)

    @contextmanager
    def lock(self, wait_s: float = LOCK_WAIT_S) -> Iterator[int]:
        """Yield the locked descriptor, which children may inherit; Deferred (75) when somebody else is at work."""
        told = "another edge-far daemon or a fleet's round{owner} is at work here"
        with _locked(self.root / "lock", wait_s, told) as descriptor:
            yield descriptor

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Be the one daemon that looks here by itself; Deferred (75) when there is one."""
        with _locked(self.root / "waiting", LOCK_WAIT_S, "another edge-far daemon{owner} looks here by itself"):
            yield

    def working_pid(self) -> int | None:
        """Return the process that is at work here (0: unknown), or None."""
        return _holder(self.root / "lock")

    def running_pid(self) -> int | None:
        """Return the process that is at work here or waits to be (0: unknown), or None when there is none."""
        waits = _holder(self.root / "waiting")
        return self.working_pid() if waits is None else waits

    def give_to_owner(self) -> None:
        """After a command run by root: give new files to the directory's owner, whom the daemon runs as."""
        if os.geteuid() != 0:
            return
        owner = self.root.stat()
        if owner.st_uid == 0:
            return
        for directory, names, files in os.walk(self.root):
            for name in [*names, *files]:
                path = Path(directory, name)
                with suppress(FileNotFoundError):
                    found = path.lstat()
                    if found.st_uid == 0 and (found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)):
                        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


@contextmanager
def _locked(path: Path, wait_s: float, told: str) -> Iterator[int]:
    """Yield a file's locked descriptor; raises Deferred with `told` where it is another's for so long, StorageError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error(error, path) from error
    try:
        deadline = time.monotonic() + wait_s
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                text = told.format(owner=_owner(descriptor))
                raise Deferred(text, where=str(path.parent), hint="wait for its end")
            time.sleep(0.05)
        _sign(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def _holder(path: Path) -> int | None:
    """Return the process that holds a lock (0: unknown), None where it is free."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _try_lock(descriptor):
            return None
        with suppress(ValueError):
            return int(os.pread(descriptor, 20, 0))
        return 0
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int, path: Path) -> None:
    """Write into the lock file who holds it; StorageError."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise storage_error(error, path) from error


def _owner(descriptor: int) -> str:
    text = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
    return f" (process {text})" if text.isdigit() else ""
