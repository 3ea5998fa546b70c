"""A place where releases of two models appear as the service makes them, and a spool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.daemon.releases import Releases
from edge_far.device.release_files import write_release


class Service:
    """The side of the daemon: releases below `root`/model, and a spool."""

    def __init__(self, root: Path, models: list[Path]) -> None:
        self.models = models
        self.releases = Releases(root / "model")
        self.link = root / "model" / "current"
        self.spool = root / "spool"
        self.spool.mkdir()

    def release(self, model: int) -> str:
        """Publish one of the two models, let `current` name it, and remove what nobody needs; return its ID."""
        before = self.releases.current_id()
        id = self.releases.next_id(self.models[model])
        self.releases.publish(id, self.models[model], replaces=before, facts={})
        self.releases.switch(id, expected=before)
        self.releases.prune()
        return id

    @property
    def spooled(self) -> list[bytes]:
        """Return the lines that wait, in the order of their arrival."""
        return [path.read_bytes() for path in sorted(self.spool.glob("*.jsonl"))]


def two_models(bundle: Bundle, folder: Path) -> list[Path]:
    """Write two directories as `edge-far merge` does: a bundle's model, and the same with other learners."""
    learners = read_arrays(bundle.path("learners.safetensors"))
    random = np.random.default_rng(0)
    other = {name: array + random.normal(0, 0.5, array.shape).astype(np.float32) for name, array in learners.items()}
    for name, arrays in (("a", learners), ("b", other)):
        write_release(bundle, arrays, folder / name)
    return [folder / "a", folder / "b"]


@pytest.fixture(scope="session")
def models(tiny_bundle: Callable[[str], Bundle], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two directories of `edge-far merge`."""
    return two_models(tiny_bundle("tiny-fp32"), tmp_path_factory.mktemp("models"))


@pytest.fixture
def service(models: list[Path], tmp_path: Path) -> Service:
    """Return a service whose first release is the first model."""
    made = Service(tmp_path, models)
    made.release(0)
    return made
