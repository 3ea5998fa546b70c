"""edge-far report, end to end; what needs no matplotlib runs on the device too."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from edge_far.cli import main

needs_matplotlib = pytest.mark.host
HAS_MATPLOTLIB = importlib.util.find_spec("matplotlib") is not None


@pytest.fixture
def run_directory(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    records: list[dict[str, object]] = [
        {"event": "start", "time_s": 0, "profile": "rpi4-2gb", "budget_mib": 900, "steps": 3}
    ]
    for step in (1, 2, 3):
        records.append({"event": "step", "step": step, "time_s": step, "loss": 3.0 / step, "rss_mib": 400 + step})
    records.append({"event": "eval", "step": 3, "time_s": 3.5, "accuracy": 0.75})
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + '{"event": "st')
    return run


@needs_matplotlib
def test_draws_a_picture_and_describes_it(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_directory.parent / "run.png"
    assert main(["report", str(run_directory), "--out", str(out), "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert (document["steps"], document["final_loss"], document["accuracy"]) == (3, 1.0, 0.75)
    assert (document["peak_rss_mib"], document["budget_mib"]) == (403, 900)
    assert "1 torn line" in shown.err
    assert out.read_bytes().startswith(b"\x89PNG")


@needs_matplotlib
def test_prints_one_line_for_people(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_directory.parent / "run.png"
    assert main(["report", str(run_directory), "--out", str(out)]) == 0
    assert capsys.readouterr().out == (f"{out}: 3 steps, loss 1.000, eval accuracy 75.0%, peak memory 403 of 900 MiB\n")


@pytest.mark.skipif(HAS_MATPLOTLIB, reason="matplotlib is installed here")
def test_without_matplotlib_it_is_unavailable(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run_directory), "--out", str(run_directory / "run.png")]) == 69
    assert "needs matplotlib" in capsys.readouterr().err


def test_wrong_arguments_and_missing_runs(run_directory: Path, tmp_path: Path) -> None:
    assert main(["report", str(run_directory), "--out", str(tmp_path / "run.pdf")]) == 64
    assert main(["report", str(run_directory)]) == 64
    assert main(["report", str(tmp_path / "none"), "--out", str(tmp_path / "run.png")]) == 66
