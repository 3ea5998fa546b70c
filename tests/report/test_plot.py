"""The picture of a run, looked at through matplotlib's own objects and the PNG's pixels."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.errors import StorageError, Unavailable
from edge_far.report.plot import draw_run, smoothed
from edge_far.report.runlog import EvalPoint, RunLog, StepPoint

pytestmark = pytest.mark.host


def a_log(steps: int = 50, **more: Any) -> RunLog:
    points = [StepPoint(n, n * 0.5, 3.0 / n) for n in range(1, steps + 1)]
    memory = [(point.time_s, 200.0 + point.step % 7) for point in points]
    facts = {"profile": "rpi-zero2w-512", "budget_mib": 300.0, "peak_rss_mib": 240.0, **more}
    return RunLog(steps=points, memory=memory, **facts)


def test_draws_a_correlation_that_may_be_negative(tmp_path: Path) -> None:
    log = a_log(evals=[EvalPoint(25, "pearson", -0.2), EvalPoint(50, "pearson", 0.7)])
    draw_run(log, tmp_path / "run.png", title="A run")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_draws_a_png_with_both_halves_filled(tmp_path: Path) -> None:
    from matplotlib.image import imread

    out = tmp_path / "run.png"
    draw_run(
        a_log(evals=[EvalPoint(25, "accuracy", 0.5), EvalPoint(50, "accuracy", 0.9)], resumes=[20]), out, title="A run"
    )
    pixels = np.round(imread(out)[:, :, :3] * 255).astype(int)
    assert pixels.shape == (630, 1500, 3)
    reds = np.abs(pixels - (0xC5, 0x30, 0x30)).sum(axis=2) < 12
    greens = np.abs(pixels - (0x2F, 0x85, 0x5A)).sum(axis=2) < 12
    assert reds[:, 850:].sum() > 500 and reds[:, :700].sum() == 0  # the budget line, on the right only
    assert greens[:, :850].sum() > 300 and greens[:, 900:].sum() == 0  # accuracy, on the left only
    assert [path.name for path in tmp_path.iterdir()] == ["run.png"]


@pytest.mark.parametrize(
    "more",
    [
        {"budget_mib": None},
        {"memory": [], "peak_rss_mib": None},
        {"memory": [], "peak_rss_mib": None, "budget_mib": None},
        {"peak_rss_mib": 295.0},
        {"peak_rss_mib": 310.0},
    ],
)
def test_draws_whatever_a_log_lacks(tmp_path: Path, more: dict[str, Any]) -> None:
    log = a_log(**{key: value for key, value in more.items() if key != "memory"})
    if "memory" in more:
        log.memory = more["memory"]
    draw_run(log, tmp_path / "run.png", title="A run")
    assert (tmp_path / "run.png").stat().st_size > 10_000


def test_draws_a_run_of_one_step(tmp_path: Path) -> None:
    draw_run(a_log(1), tmp_path / "run.png", title="A run")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_smoothing_is_the_weighted_mean_of_what_came_before() -> None:
    values = [5.0, 1.0, 4.0, 2.0]
    for index, value in enumerate(smoothed(values, 0.8)):
        weights = 0.8 ** np.arange(index, -1, -1)
        assert value == pytest.approx(np.average(values[: index + 1], weights=weights), rel=1e-12)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(Unavailable, match="edge-far"):
        draw_run(a_log(), tmp_path / "run.png", title="A run")


def test_a_directory_that_does_not_exist_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        draw_run(a_log(), tmp_path / "no" / "run.png", title="A run")
