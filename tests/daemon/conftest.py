"""A device in the field, fresh for each test, or with a release of its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.daemon.field import Field


def the_bundle(request: pytest.FixtureRequest) -> Path:
    """Return the smallest fp32 bundle, or the one of five labels that EDGE_FAR_TINY_BUNDLE names."""
    named = os.environ.get("EDGE_FAR_TINY_BUNDLE")
    return Path(named) if named else request.getfixturevalue("test_bundles") / "tiny-fp32"


@pytest.fixture
def field(tmp_path: Path, request: pytest.FixtureRequest) -> Field:
    """Return a device that has run nothing yet."""
    return Field(tmp_path, the_bundle(request))


@pytest.fixture(scope="session")
def begun(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Field:
    """Return a device that has made its factory release; do not change it."""
    made = Field(tmp_path_factory.mktemp("begun"), the_bundle(request))
    made.once(status=75)
    return made


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Field:
    """Return a device that has trained on 600 examples and released what it learnt; do not change it."""
    made = Field(tmp_path_factory.mktemp("adapted"), the_bundle(request))
    made.feed(600)
    assert made.once()["cycle"]["outcome"] == "released"
    return made


@pytest.fixture
def released(adapted: Field, tmp_path: Path) -> Field:
    """Return a copy of the adapted device, for a test whose story begins there."""
    return adapted.copied_to(tmp_path)
