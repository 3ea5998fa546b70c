"""benchmarks/gradient_cosine.py: cosines, which gradients are compared, which sentences are taken."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gradient_cosine.py"


@pytest.fixture(name="script", scope="module")
def _script() -> Any:
    spec = importlib.util.spec_from_file_location("gradient_cosine", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("degrees", "scale"), [(0, 1), (30, 1e-12), (60, 3e20), (90, 1), (180, 5)])
def test_cosine_is_that_of_the_angle_at_any_length(script: Any, degrees: float, scale: float) -> None:
    angle = np.radians(degrees)
    a = np.array([[0.0, 2.0], [0.0, 0.0]], np.float32)
    b = (scale * np.array([[np.sin(angle), np.cos(angle)], [0.0, 0.0]])).astype(np.float32)
    assert script.cosine(a, b) == pytest.approx(np.cos(angle), abs=1e-7)


def test_cosine_with_a_zero_gradient_is_zero(script: Any) -> None:
    assert script.cosine(np.zeros(3, np.float32), np.ones(3, np.float32)) == 0.0


def test_gradients_below_a_thousandth_of_all_are_left_out(script: Any) -> None:
    # The norm of all is 5 (3 and 4 at right angles): the limit is 0.005, whatever the shape.
    gradients = {
        "weight": np.array([[3.0, 0.0]], np.float32),
        "bias": np.array([0.0, 4.0], np.float32),
        "just_in": np.array([0.0051], np.float32),
        "just_out": np.full(4, 0.00245, np.float32),
        "zero": np.zeros(2, np.float32),
    }
    assert script.long_enough(gradients) == ["weight", "bias", "just_in"]


def test_sentences_are_taken_from_the_whole_file(script: Any, tmp_path: Path) -> None:
    rows = [[f"sentence {number}", f"label {number // 10}"] for number in range(30)]
    (tmp_path / "data_full.json").write_text(json.dumps({"train": rows, "val": [["other", "x"]]}))
    examples = script.read_data(tmp_path)
    assert [(example.text, example.label) for example in examples] == [tuple(row) for row in rows]
    assert [example.label for example in script.evenly(examples, 3)] == ["label 0", "label 1", "label 2"]
    assert script.evenly(examples, 99) == examples


def test_the_table_says_which_aim_was_missed(script: Any) -> None:
    row = {"graph": "step", "worst_name": "w", "median": 1.0, "compared": 2, "left_out": ["key"], "seconds": 0.1}
    rows = [
        {**row, "precision": "fp32", "worst": 1.0, "aim": None, "met": True},
        {**row, "precision": "int8", "worst": 0.98, "aim": 0.985, "met": False},
    ]
    lines = script.as_markdown(rows, 7).splitlines()
    assert lines[2].endswith("| 0.1000 |  |")
    assert lines[3] == "| int8 | step | 0.98000 | w | 1.00000 | 0.1000 | 0.985: MISSED |"
    assert "7 sentences; 2 learner tensors" in lines[-1] and lines[-1].endswith("key")
