"""What a run keeps on disk, so that a power cut at any instruction loses at most the steps since the last checkpoint.

    RUN/run.json                         what was asked for, and of which bundle and data
    RUN/log.jsonl                        the run log
    RUN/step_downs.json                  smaller plans taken under memory pressure, and at which step
    RUN/checkpoints/step-00000120/       learners, optimiser state, state.json
    RUN/best/                            learners of the best evaluation, its metrics
    RUN/learners.safetensors             the result, once training has ended
    RUN/result.json                      its figures

Every directory and file is complete or absent. A checkpoint's state.json holds the hashes of its arrays; one that does
not match is passed over for the one before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.device.arrays import write_arrays
from edge_far.errors import BundleError
from edge_far.storage import remove_leftovers, sha256_of, staged_directory, write_atomically

__all__ = ["Checkpoint", "RunDirectory", "TrainingState"]

KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class TrainingState:
    """Where training stands: optimiser steps done, the best evaluation so far, and seconds spent."""

    step: int
    best_step: int | None
    best_accuracy: float | None
    seconds: float
    examples: int


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    state: TrainingState
    learners: Path
    optimizer: Path


class RunDirectory:
    """The files of one run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.log = root / "log.jsonl"
        self.settings = root / "run.json"
        self.step_downs = root / "step_downs.json"
        self.best = root / "best"
        self.learners = root / "learners.safetensors"
        self.result = root / "result.json"

    def prepare(self) -> None:
        """Create the directories and clear what a killed process left behind."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        for path in (self.settings, self.step_downs, self.best, self.learners, self.result):
            remove_leftovers(path)
        for path in self.checkpoints.glob(".*.tmp"):
            shutil.rmtree(path, ignore_errors=True)

    def save(
        self, state: TrainingState, learners: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray]
    ) -> None:
        """Publish a checkpoint, then remove all but the newest KEPT_CHECKPOINTS."""
        final = self._checkpoint(state.step)
        if final.exists():
            return
        with staged_directory(final) as staging:
            write_arrays(staging / "learners.safetensors", learners)
            write_arrays(staging / "optimizer.safetensors", optimizer)
            hashes = {path.name: sha256_of(path) for path in sorted(staging.glob("*.safetensors"))}
            document = {**asdict(state), "sha256": hashes}
            write_atomically(staging / "state.json", json.dumps(document, indent=2).encode())
        for old in self._newest_first()[KEPT_CHECKPOINTS:]:
            shutil.rmtree(old, ignore_errors=True)

    def load_latest(self) -> Checkpoint | None:
        """Return the newest complete checkpoint, or None; raises BundleError when there are some and all are damaged."""
        found = self._newest_first()
        for directory in found:
            checkpoint = self._load(directory)
            if checkpoint is not None:
                return checkpoint
        if found:
            raise BundleError(
                f"all {len(found)} checkpoints are damaged",
                where=str(self.checkpoints),
                hint="start a new run",
            )
        return None

    def _load(self, directory: Path) -> Checkpoint | None:
        try:
            document: dict[str, Any] = json.loads((directory / "state.json").read_bytes())
            hashes = document.pop("sha256")
            if any(sha256_of(directory / name) != digest for name, digest in hashes.items()):
                return None
            return Checkpoint(
                TrainingState(**document),
                directory / "learners.safetensors",
                directory / "optimizer.safetensors",
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _newest_first(self) -> list[Path]:
        return sorted((path for path in self.checkpoints.glob("step-*") if path.is_dir()), reverse=True)

    def _checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"
