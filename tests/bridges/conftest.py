"""Two released models with different answers, and a service that makes releases of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from tests.application.releases import Service, two_models


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
