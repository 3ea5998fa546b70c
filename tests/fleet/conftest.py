"""A device of a fleet, fresh for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.board import Board


@pytest.fixture
def board(tmp_path: Path, test_bundles: Path) -> Board:
    """Return a device with the smallest fp32 bundle and an empty desk."""
    return Board(tmp_path, test_bundles / "tiny-fp32")
