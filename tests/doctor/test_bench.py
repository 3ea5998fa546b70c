"""`doctor --bench`: the block for a report, and a calibration that the plan then takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from edge_far.device.board.cpu import CpuShare
from edge_far.doctor.bench import report
from edge_far.doctor.finding import Finding

FINDINGS = [Finding("swap", "warn", "none"), Finding("memory", "ok", "4 GB"), Finding("heat", "note", "66 degrees C")]


def figures(**other: object) -> dict[str, object]:
    basics = {
        "threads": 4,
        "products": [{"kind": "int8", "rows": 1, "inner": 2, "columns": 3, "runs": 8, "gflop_s": 12.34}],
        "copy_mib": 64.0,
        "copy_gb_s": 3.21,
    }
    after = [{"name": "throttling", "read": "now, by heat"}]
    return {"threads": 4, "basics": basics, "reason": None, "calibration": None, "after": after, **other}


def test_the_block_holds_what_is_not_ok_and_all_figures() -> None:
    calibration = {"kernels": 93, "best_gflop_s": {"float32": 8.0, "int8": 16.5}}
    lines = report(FINDINGS, figures(calibration=calibration), "a board").splitlines()
    assert lines[0] == lines[-1] == "```" and lines[1].startswith("edge-far     0.")
    assert lines[2:-1] == [
        "board        a board",
        "warn         swap: none",
        "note         heat: 66 degrees C",
        "product      int8     1 x 2 x 3: 12.3 GFLOP/s (4 threads, median of 8)",
        "memory       copy 3.2 GB/s (1 thread, 64 MiB)",
        "bundle       93 kernels measured for the plan; best product: float32 8.0 GFLOP/s, int8 16.5 GFLOP/s",
        "after        throttling: now, by heat",
    ]


def test_the_block_names_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    finding = Finding("cache space", "bad", "0 MiB free at /home/somebody/.cache/edge-far")
    text = report([finding], figures(basics=None, reason="No module named 'onnxruntime'"), "a board")
    assert "somebody" not in text and "0 MiB free at ~/.cache/edge-far" in text
    assert "speed        none: No module named 'onnxruntime'" in text


def test_what_contradicts_itself_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--bench", "--root", str(tmp_path)]) == 64
    assert main(["doctor", "--bundle", str(tmp_path)]) == 64
    assert main(["doctor", "--bench", "--keep-calibration", str(tmp_path / "kept.json")]) == 64
    assert main(["doctor", "--bench-seconds", "5"]) == 64
    assert main(["doctor", "--bench", "--bench-seconds", "61"]) == 78
    assert "--bench-seconds: must be from 1 to 60 s" in capsys.readouterr().err


def test_what_cannot_be_read_or_written_is_refused_before_it_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = str(tmp_path / "none")
    assert main(["doctor", "--bench", "--bundle", none]) == 66
    assert main(["doctor", "--bench", "--bundle", none, "--keep-calibration", f"{none}/kept.json"]) == 74
    told = capsys.readouterr().err
    assert "none: cannot write: No such file or directory (create the directory first)" in told
    assert "measuring" not in told


@pytest.mark.device
def test_the_plan_takes_what_was_measured(
    tiny_bundle: Callable[[str], Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = str(tiny_bundle("tiny-int8").root)
    monkeypatch.setattr("edge_far.doctor.bench.cpu_share", lambda: CpuShare((0,), 1))
    kept = str(tmp_path / "kept.json")
    main(["doctor", "--bench", "--bench-seconds", "1", "--bundle", bundle, "--keep-calibration", kept, "--json"])
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    assert document["bench"]["calibration"]["kernels"] > 10
    assert set(document["bench"]["calibration"]["best_gflop_s"]) == {"float32", "int8"}
    assert document["bench"]["basics"]["copy_gb_s"] > 0 and document["report"].startswith("```\nedge-far")
    assert "measuring this machine's speed" in shown.err and f"the plan's times are written to {kept}" in shown.err
    assert main(["plan", bundle, "--threads", "1", "--json"]) == 0
    shown = capsys.readouterr()
    here = json.loads(shown.out)
    assert here["step_seconds"] and "measuring" not in shown.err
    assert main(["plan", bundle, "--calibration", kept, "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    assert there["times_from"] == here["times_from"] and there["calibration"] == kept
    assert there["step_seconds"] == here["step_seconds"]
    assert main(["doctor", "--bench", "--bundle", bundle, "--keep-calibration", kept]) == 73
