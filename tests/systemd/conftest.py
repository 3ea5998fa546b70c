"""What the tests in a container share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def installed_bundle(request: pytest.FixtureRequest) -> Path:
    """Return the tiny bundle, or the one that EDGE_FAR_TINY_BUNDLE names."""
    named = os.environ.get("EDGE_FAR_TINY_BUNDLE")
    if named:
        return Path(named)
    bundles: Path = request.getfixturevalue("test_bundles")
    return bundles / "tiny-fp32"
