"""What a rung's run takes on a board at least: its products at the speed that `edge-far doctor --bench` measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.errors import DataError
from edge_far.json_file import Damaged, read_document
from edge_far.storage import unreadable

__all__ = ["BoardSpeed", "read_board_speed"]

FLOAT32 = "float32"


@dataclass(frozen=True)
class BoardSpeed:
    """Of a board: the speed of float32 products in GFLOP/s, by their inner dimension."""

    speeds: Mapping[int, float]

    def seconds(self, gflop: float, width: int) -> float:
        """Return what so many 10^9 operations of products of a model of that width take at least, in seconds.

        What lies between products (normalisation, softmax, moving data, the update) comes on top.
        """
        nearest = min(self.speeds, key=lambda inner: abs(math.log(inner / width)))
        return gflop / self.speeds[nearest]


def read_board_speed(path: Path) -> BoardSpeed:
    """Read what `edge-far doctor --bench --json` printed.

    Raises InputMissing, StorageError, or DataError for another document and for one without a measurement.
    """
    hint = "run 'edge-far doctor --bench --json > board.json' on the board, and bring the file"
    try:
        document = read_document(path, Any)
    except OSError as error:
        raise unreadable(error, path, hint) from error
    except Damaged as error:
        raise DataError(f"not a JSON document: {error}", where=str(path), hint=hint) from error
    speeds = {inner: speed for inner, speed in _products(document) if speed > 0}
    if not speeds:
        raise DataError("holds no measured product in float32", where=str(path), hint=hint)
    return BoardSpeed(speeds)


def _products(document: Any) -> list[tuple[int, float]]:
    try:
        return [
            (int(each["inner"]), float(each["gflop_s"]))
            for each in document["bench"]["basics"]["products"]
            if each["kind"] == FLOAT32 and int(each["inner"]) > 0
        ]
    except (KeyError, TypeError, ValueError):
        return []
