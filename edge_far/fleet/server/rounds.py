"""A fleet's rounds on the server's disk: each finished round is a directory that appears by one rename.

    DIR/rounds/000003/learners.safetensors    after round 3, float32
    DIR/rounds/000003/moments.safetensors     what a strategy keeps between rounds (FedAdam), or not there
    DIR/rounds/000003/round.json              who took part, who declined and why, figures, bytes
    DIR/release/learners.safetensors, fleet.json      after the last round

A server that was killed goes on behind the newest complete round. Refuses to know Flower.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bundles.arrays import read_arrays, read_learners, write_arrays
from edge_far.errors import ConfigError, InputMissing, StorageError
from edge_far.fleet.exchange import Arrays, Form
from edge_far.json_file import Damaged, read_document
from edge_far.storage import remove_leftovers, sha256_of, staged_directory, storage_error, write_json

__all__ = ["Finished", "Rounds", "Settings"]

LEARNERS, MOMENTS, ROUND, SETTINGS = "learners.safetensors", "moments.safetensors", "round.json", "settings.json"
NAME = re.compile(r"\d{6}")
KEPT = 2


@dataclass(frozen=True)
class Settings:
    """What must stay the same from a fleet's first round to its last."""

    bundle: str
    strategy: str
    traffic: str


@dataclass(frozen=True)
class Finished:
    """The newest finished round (0: none yet), the learners after it, and what the strategy keeps."""

    round: int
    learners: dict[str, np.ndarray]
    moments: dict[str, np.ndarray]


class Rounds:
    """One fleet's directory; raises StorageError (74) where it cannot be written."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._rounds = self.root / "rounds"
        self.release = self.root / "release"

    def open(self, settings: Settings, first: Path) -> Finished:
        """Return where to go on: behind the newest complete round, or at the bundle's learners `first`.

        Raises ConfigError (78) where the directory belongs to another fleet.
        """
        try:
            self._rounds.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self._rounds) from error
        self._keep_or_refuse(settings)
        for path in [self.release, *(self._rounds / name for name in self._names())]:
            remove_leftovers(path)
        for leftover in self._rounds.glob(".*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        form = Form.of(read_learners(first))
        names = self._names()
        if not names:
            return Finished(0, read_learners(first), {})
        newest = self._rounds / names[-1]
        learners = read_learners(newest / LEARNERS)
        form.check(learners, str(newest))
        moments = read_arrays(newest / MOMENTS) if (newest / MOMENTS).is_file() else {}
        return Finished(int(names[-1]), learners, moments)

    def finish(self, number: int, learners: Arrays, moments: Arrays, record: Mapping[str, Any]) -> None:
        """Keep a finished round; returns when it is durable. Only the newest rounds keep their arrays."""
        with staged_directory(self._rounds / f"{number:06d}", replace=True) as staging:
            write_arrays(staging / LEARNERS, learners)
            if moments:
                write_arrays(staging / MOMENTS, moments)
            write_json(staging / ROUND, dict(record))
        for name in self._names()[:-KEPT]:
            for file in (LEARNERS, MOMENTS):
                (self._rounds / name / file).unlink(missing_ok=True)

    def publish(self, number: int, learners: Arrays, bundle: str) -> dict[str, Any]:
        """Write the release of the learners after a round; return its document."""
        with staged_directory(self.release, replace=True) as staging:
            write_arrays(staging / LEARNERS, learners)
            document = {"rounds": number, "bundle": bundle, "sha256": sha256_of(staging / LEARNERS), "offered": []}
            write_json(staging / "fleet.json", document)
        return document

    def offered(self) -> set[str]:
        """Return the nodes that have taken the release."""
        document = self._release_document()
        return set(map(str, document.get("offered", [])))

    def note_offered(self, nodes: set[str]) -> None:
        """Note that nodes have taken the release."""
        document = self._release_document()
        document["offered"] = sorted(self.offered() | nodes)
        write_json(self.release / "fleet.json", document)

    def released_round(self) -> int | None:
        """Return after which round the release was made, None where there is none."""
        found = self._release_document().get("rounds")
        return found if isinstance(found, int) else None

    def records(self) -> list[dict[str, Any]]:
        """Return what is kept of every finished round, the first one first; raises InputMissing without a fleet."""
        try:
            names = self._names()
        except PermissionError as error:
            hint = "run it with sudo"
            raise InputMissing("the rounds are not for this user", where=str(self.root), hint=hint) from error
        except OSError as error:
            hint = "name the directory that 'flwr run' was given as 'state'"
            raise InputMissing("no fleet has had a round here", where=str(self.root), hint=hint) from error
        found = []
        for name in names:
            try:
                found.append(read_document(self._rounds / name / ROUND, dict[str, Any]))
            except (OSError, Damaged) as error:
                raise StorageError(f"cannot read: {error}", where=str(self._rounds / name / ROUND)) from error
        return found

    def _release_document(self) -> dict[str, Any]:
        try:
            document: dict[str, Any] = read_document(self.release / "fleet.json", dict[str, Any])
        except (OSError, Damaged):
            return {}
        return document

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._rounds.iterdir() if NAME.fullmatch(path.name))

    def _keep_or_refuse(self, settings: Settings) -> None:
        path = self.root / SETTINGS
        if not path.exists():
            write_json(path, asdict(settings))
            return
        try:
            known: Settings = read_document(path, Settings)
        except (OSError, Damaged) as error:
            raise ConfigError(f"the fleet's settings cannot be read: {error}", where=str(path)) from error
        for name, value in asdict(settings).items():
            before = getattr(known, name)
            if before != value:
                hint = "name another directory for another fleet"
                raise ConfigError(f"{name} was {before[:40]}, is {value[:40]}", where=str(path), hint=hint)
