"""report/board_time.py: seconds by the nearest product's speed; what is no measurement is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_far.errors import DataError, InputMissing
from edge_far.report.board_time import BoardSpeed, read_board_speed


def document(*products: tuple[str, int, float]) -> dict[str, Any]:
    told = [
        {"kind": kind, "rows": 1, "inner": inner, "columns": 1, "gflop_s": speed} for kind, inner, speed in products
    ]
    return {"verdict": "ok", "bench": {"threads": 4, "basics": {"products": told}}}


def test_the_nearest_float32_product_counts(tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    file.write_text(json.dumps(document(("float32", 384, 10.0), ("int8", 384, 99.0), ("float32", 768, 20.0))))
    speed = read_board_speed(file)
    assert speed == BoardSpeed({384: 10.0, 768: 20.0})
    assert (speed.seconds(600.0, 312), speed.seconds(600.0, 1024)) == (60.0, 30.0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nothing", "not a JSON document"),
        ("[]", "no measured product"),
        (json.dumps({"bench": None}), "no measured product"),
        (json.dumps(document(("int8", 384, 9.0))), "no measured product"),
        (json.dumps(document(("float32", 384, 0.0))), "no measured product"),
        (json.dumps(document(("float32", 384, float("nan")))), "not a JSON document: holds a number that cannot be"),
        ("[" * 100_000, "not a JSON document: is nested too deeply"),
    ],
)
def test_other_documents_are_refused(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "b").write_text(text)
    with pytest.raises(DataError, match=why):
        read_board_speed(tmp_path / "b")
    with pytest.raises(InputMissing, match="no such file"):
        read_board_speed(tmp_path / "absent")
    with pytest.raises(InputMissing, match=r"is a directory, not a file .run 'edge-far doctor"):
        read_board_speed(tmp_path)
