"""What a run keeps on disk, so that a power cut at any instruction loses at most the steps since the last checkpoint.

    RUN/run.json                         what was asked for, and of which bundle and data
    RUN/log.jsonl                        the run log
    RUN/checkpoints/step-00000120/       learners, optimiser state, state.json
    RUN/best/                            learners of the best evaluation, its metrics
    RUN/learners.safetensors             the result, once training has ended
    RUN/result.json                      its figures and its hash; written last

Every directory and file is complete or absent. A checkpoint's state.json holds the hashes of its arrays and of itself;
one that does not match is passed over for the one before.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edge_far.bundles.arrays import write_arrays
from edge_far.device.run.figures import check_metrics
from edge_far.device.run.training_state import TrainingState
from edge_far.disk.directory_moves import fsync_directory
from edge_far.errors import BundleError, ConfigError, Deferred, InputMissing, StorageError
from edge_far.json_file import Damaged, decode, read_document
from edge_far.storage import (
    TRIAL,
    remove_leftovers,
    sha256_of,
    staged_directory,
    storage_error,
    try_directory,
    write_atomically,
    write_json,
)

__all__ = ["Checkpoint", "RunDirectory"]

KEPT_CHECKPOINTS = 2
ARRAYS = {"learners.safetensors", "optimizer.safetensors"}


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk; `damaged` newer ones were passed over."""

    state: TrainingState
    learners: Path
    optimizer: Path
    damaged: int

    def refuse_other_optimizer(self, name: str) -> None:
        """Raise ConfigError where the optimiser `name` cannot go on from this state."""
        if self.state.optimizer != name:
            raise ConfigError(
                f"the checkpoint was written with {self.state.optimizer}, not {name}",
                where="--optimizer",
                hint=f"continue it with --optimizer {self.state.optimizer}, or start a new run",
            )

    def refuse_later_step(self, last: int) -> None:
        """Raise BundleError where the run would have ended before this state: it is that of another run."""
        if self.state.step > last:
            message = f"the checkpoint is of step {self.state.step}, and this run has {last}"
            raise BundleError(message, where=str(self.learners.parent), hint="start a new run")


class RunDirectory:
    """The files of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.log = root / "log.jsonl"
        self.settings = root / "run.json"
        self.best = root / "best"
        self.learners = root / "learners.safetensors"
        self.result = root / "result.json"
        self._saved: tuple[int, dict[str, str]] | None = None  # step and hashes of the newest checkpoint

    @property
    def unused(self) -> bool:
        """Say whether a new run can begin here: nothing there, or what a start that was killed at once left behind."""
        if not self.root.exists():
            return True
        leftovers = (".run.json.", f".{TRIAL}.")
        return self.root.is_dir() and all(path.name.startswith(leftovers) for path in self.root.iterdir())

    def try_storage(self) -> None:
        """Raise now the StorageError (74) that the first checkpoint would raise after minutes of training."""
        try_directory(next(path for path in (self.root, *self.root.absolute().parents) if path.exists()))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the directory and hold it for this process alone; raises Deferred while another one trains here."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            fsync_directory(self.root.parent)
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise storage_error(error, self.root) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise Deferred(
                "another process is training this run", where=str(self.root), hint="wait for it, or stop it first"
            ) from error
        finally:
            os.close(descriptor)

    def prepare(self) -> None:
        """Create the directories and clear what a killed process left behind."""
        try:
            self.checkpoints.mkdir(exist_ok=True)
            fsync_directory(self.root)
        except OSError as error:
            raise storage_error(error, self.checkpoints) from error
        hidden = [*self.checkpoints.glob(".step-*.old"), *self.checkpoints.glob(".step-*.copy")]
        replaced = [path.with_name(path.stem[1:]) for path in hidden]
        for path in (self.settings, self.best, self.learners, self.result, self.root / TRIAL, *replaced):
            remove_leftovers(path)
        for path in self.checkpoints.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def save(
        self, state: TrainingState, learners: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]
    ) -> None:
        """Publish a checkpoint, then remove all but the newest KEPT_CHECKPOINTS; raises StorageError.

        A second one of the same step replaces state.json alone: the arrays are those of the first.
        """
        final = self.checkpoints / _directory_name(state)
        if self._saved is not None and self._saved[0] == state.step:
            write_json(final / "state.json", _document(state, self._saved[1]))
            return
        with staged_directory(final, replace=True) as staging:
            write_arrays(staging / "learners.safetensors", learners)
            write_arrays(staging / "optimizer.safetensors", optimizer)
            hashes = {path.name: sha256_of(path) for path in sorted(staging.glob("*.safetensors"))}
            write_json(staging / "state.json", _document(state, hashes))
        self._saved = (state.step, hashes)
        for old in self._newest_first()[KEPT_CHECKPOINTS:]:
            shutil.rmtree(old, ignore_errors=True)

    def keep_best(self, learners: Mapping[str, np.ndarray], metrics: Mapping[str, Any]) -> None:
        """Replace the best learners so far and the metrics that say so."""
        with staged_directory(self.best, replace=True) as staging:
            write_arrays(staging / "learners.safetensors", learners)
            write_json(staging / "metrics.json", metrics)

    def publish_best(self) -> dict[str, Any]:
        """Make the best learners the run's result; return their metrics."""

        def write(file: BinaryIO) -> None:
            with (self.best / "learners.safetensors").open("rb") as found:
                shutil.copyfileobj(found, file)

        write_atomically(self.learners, write)
        return self._best_metrics()

    def publish(self, learners: Mapping[str, np.ndarray]) -> None:
        """Make these learners the run's result."""
        write_arrays(self.learners, learners)

    def finish(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Write result.json, which ends the run: its figures and the hash of the published learners; return it."""
        result = {**figures, "learners_sha256": sha256_of(self.learners)}
        write_json(self.result, result)
        return result

    def load_latest(self) -> Checkpoint | None:
        """Return the newest complete checkpoint, or None where there is none; removes damaged newer ones.

        Raises StorageError where one cannot be read, BundleError when there are some and all are damaged.
        """
        found = self._newest_first()
        for damaged, directory in enumerate(found):
            loaded = _load(directory)
            if loaded is None:
                continue
            for old in found[:damaged]:
                shutil.rmtree(old, ignore_errors=True)
            state, hashes = loaded
            if state.best_step is not None:
                self._best_metrics()  # rather now than when training has ended
            self._saved = (state.step, hashes)
            return Checkpoint(state, directory / "learners.safetensors", directory / "optimizer.safetensors", damaged)
        if found:
            raise BundleError(
                "the checkpoint is damaged" if len(found) == 1 else f"all {len(found)} checkpoints are damaged",
                where=str(self.checkpoints),
                hint="start a new run",
            )
        return None

    def _best_metrics(self) -> dict[str, Any]:
        """Return the metrics of the best learners; raises BundleError where they are damaged."""
        path = self.best / "metrics.json"
        try:
            metrics: dict[str, Any] = read_document(path, dict[str, Any])
            check_metrics(metrics)
            return metrics
        except (Damaged, FileNotFoundError) as error:
            reason = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged: {error}"
            raise BundleError(reason, where=str(path), hint="start a new run") from error

    def _newest_first(self) -> list[Path]:
        return sorted((path for path in self.checkpoints.glob("step-*") if path.is_dir()), reverse=True)


def _directory_name(state: TrainingState) -> str:
    return f"step-{state.step:08d}"


def _document(state: TrainingState, hashes: Mapping[str, str]) -> dict[str, Any]:
    body = {**asdict(state), "sha256": dict(hashes)}
    return {**body, "checksum": _checksum(body)}


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _load(directory: Path) -> tuple[TrainingState, dict[str, str]] | None:
    """Return state and hashes of a checkpoint, or None when it is damaged."""
    try:
        body = read_document(directory / "state.json", dict[str, Any])
        if body.pop("checksum", None) != _checksum(body):
            return None
        hashes: dict[str, str] = decode(dict[str, str], body.pop("sha256", None))
        state: TrainingState = decode(TrainingState, body)
        named = set(hashes) == ARRAYS and directory.name == _directory_name(state)
        whole = named and all(sha256_of(directory / name) == hashes[name] for name in hashes)
        return (state, hashes) if whole else None
    except (FileNotFoundError, InputMissing, Damaged):
        return None
    except OSError as error:
        raise StorageError(f"cannot read: {error.strerror}", where=str(directory)) from error
