"""A calibration of a board that nobody measured: every kernel takes the same time for a unit of work."""

from __future__ import annotations

from pathlib import Path

from edge_far.bundles.manifest import Manifest
from edge_far.device.optimizers.registry import OPTIMIZERS
from edge_far.device.planning.machine_speed import Calibration, write_calibration


def of_a_board(path: Path, manifest: Manifest, factor: float = 1.0) -> str:
    """Write one: `factor` times 1 us a unit of work, and as much for all else; return the path."""
    us = factor * 1e-6
    points = {each.kernel: ((16.0, 1e3, 1e3 * us), (2048.0, 1e5, 1e5 * us)) for each in manifest.portable.probe}
    updates = dict.fromkeys(OPTIMIZERS, us)
    write_calibration(path, Calibration("Raspberry Pi 4, 4 cores", "1.26.0", 4, points, {}, us, us, updates), manifest)
    return str(path)
