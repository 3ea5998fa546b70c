"""The calibration of another machine, as `plan --calibration` reads it."""

from __future__ import annotations

from pathlib import Path
from random import Random

from edge_far.bundles.bundle import open_bundle
from tests.board_calibration import of_a_board
from tests.fuzz.mutate import mutate_json
from tests.fuzz.targets.base import Case, Target

__all__ = ["CalibrationFile"]


class CalibrationFile(Target):
    """A calibration's file."""

    name = "calibration"

    def prepare(self, good: Path) -> None:
        """Write one for the bundle."""
        of_a_board(good / "board.json", open_bundle(self.bundle).manifest)

    def make(self, chance: Random) -> Case:
        """Return a changed file."""
        words = ("plan", "{bundle}", "--calibration", "{work}/board.json", "--max-seq-len", "16")
        return Case({"board.json": mutate_json(self.read("board.json"), chance)}, words)
