"""A device in the field, fresh for each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon.field import Field


@pytest.fixture
def field(tmp_path: Path, request: pytest.FixtureRequest) -> Field:
    """Return a device with the smallest fp32 bundle, or the one of five labels that EDGE_FAR_TINY_BUNDLE names."""
    named = os.environ.get("EDGE_FAR_TINY_BUNDLE")
    bundle = Path(named) if named else request.getfixturevalue("test_bundles") / "tiny-fp32"
    return Field(tmp_path, bundle)
