"""The statistics of the adaptation report against hand-made and simulated cases."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "adaptation_report.py"


@pytest.fixture(name="report")
def _report() -> Any:
    spec = importlib.util.spec_from_file_location("adaptation_report", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("gains", "losses", "p"),
    # 2 * (C(10,0) + C(10,1)) / 2^10; 2 / 2^6; equal numbers and none at all say nothing
    [(9, 1, 22 / 1024), (1, 9, 22 / 1024), (6, 0, 2 / 64), (5, 5, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_by_hand(report: Any, gains: int, losses: int, p: float) -> None:
    assert report.mcnemar(gains, losses) == pytest.approx(p, rel=1e-12)


def test_pooled_interval_is_the_bootstrap_of_sentences(report: Any) -> None:
    random = np.random.default_rng(0)
    shared = random.choice([-1.0, 0.0, 0.0, 0.0, 1.0], size=400)  # what all seeds have in common of a sentence
    differences = np.stack([np.where(random.random(400) < 0.7, shared, 0.0) for _ in range(3)])
    mean, half, _ = report.pooled(differences)
    drawn = random.integers(0, 400, size=(4000, 400))
    resampled = differences.mean(axis=0)[drawn].mean(axis=1)
    assert mean == pytest.approx(differences.mean(), abs=1e-12)
    assert half == pytest.approx(1.96 * resampled.std(), rel=0.05)


def test_tables_tell_gains_and_losses(report: Any) -> None:
    before = {"batch": 0, "right": {"test": "0011", "base": "1111", "held_out": "01"}}
    after = {"batch": 1, "outcome": "released", "right": {"test": "0111", "base": "1110", "held_out": "11"}}
    table = report.comparison_table({"0": [before, after]}, {})
    assert "| test (4) | 0 | 50.00% | 75.00% | +25.00% | 1, 0 | 1.000 |" in table
    assert "| base (valid) (4) | 0 | 100.00% | 75.00% | -25.00% | 0, 1 | 1.000 |" in table
    assert "| 0, 1 | released |" in report.cycles_table({"0": [before, after]})
