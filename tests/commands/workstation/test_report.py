"""edge-far report, end to end; what needs no matplotlib runs on the device too."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import FINISHED, Journal
from tests.faults.processes import fail, succeed
from tests.report.page.sample import HOSTILE, Parsed, evaluation

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
    assert main(["report", str(tmp_path / "none"), "--html", str(tmp_path / "run.html")]) == 66
    page = ["--html", str(tmp_path / "run.html")]
    for words, code in (
        ([str(run_directory), *page, "--out", "run.png"], 64),
        ([str(run_directory), "--html", str(tmp_path / "run.png")], 64),
        ([str(run_directory), str(run_directory), "--out", "run.png"], 64),
        ([str(run_directory), "--bundle", "bundle", "--out", "run.png"], 64),
        ([str(run_directory), "--eval", str(tmp_path / "none"), *page], 66),
        ([str(run_directory), "--eval", str(run_directory / "log.jsonl"), *page], 65),
        ([str(run_directory), "--bundle", str(tmp_path / "none"), *page], 66),
    ):
        assert main(["report", *words]) == code, words
    assert not (tmp_path / "run.html").exists()


def test_a_page_of_two_runs(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run_directory.parent / "run.html"
    assert (
        main(["report", str(run_directory), str(run_directory), "--title", HOSTILE, "--html", str(out), "--json"]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    assert document["page"] == str(out) and document["sections"] == ["run-1", "run-2"]
    assert [run["accuracy"] for run in document["runs"]] == [0.75, 0.75]
    parsed = Parsed(out.read_text())
    assert parsed.text.count("75.00%") >= 4 and HOSTILE in [data for tag, data in parsed.texts if tag == "h1"]


def test_a_page_replaces_a_page_and_no_other_file(run_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.html"
    words = ["report", str(run_directory), "--html", str(out)]
    assert main(words) == 0 and main(words) == 0
    out.write_text("<p>mine</p>")
    assert main(words) == 73
    assert out.read_text() == "<p>mine</p>"


@pytest.mark.device
def test_a_page_of_a_real_run(tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path) -> None:
    root, run, out = tiny_bundle("bert-r10-5-heads").root, tmp_path / "run", tmp_path / "run.html"
    data = ("--train", tiny_data, "--eval", tiny_data)
    result = succeed("train", root, *data, "--out", run, "--epochs", "2", "--batch-size", "4", "--no-probe")
    measured = succeed("eval", root, "--run", run, "--data", tiny_data)
    confusion, classes = measured["confusion"], measured["classes"]
    assert {label: sum(row.values()) for label, row in confusion.items()} == {
        label: counts["support"] for label, counts in classes.items() if counts["support"]
    }
    assert all(confusion.get(label, {}).get(label, 0) == counts["correct"] for label, counts in classes.items())
    (tmp_path / "eval.json").write_text(json.dumps(measured))
    document = succeed("report", run, "--bundle", root, "--eval", tmp_path / "eval.json", "--html", out)
    assert document["sections"] == ["learners", "run-1", "evaluation"]
    fail(78, "report", run, "--bundle", tiny_bundle("bert-r10-5-dropout").root, "--html", out, says="another bundle")
    assert document["runs"][0]["steps"] == result["steps"] > 0
    parsed = Parsed(out.read_text())
    assert parsed.open == [] and [each["id"] for each in parsed.named("section")] == document["sections"]
    assert f"{result['peak_rss_mib']:.0f} MiB" in parsed.text and f"{measured['accuracy']:.2%}" in parsed.text
    assert "12 of 128 FFN nodes learn" in parsed.text and "2 of 8 attention heads learn" in parsed.text


def test_a_page_of_a_device_with_nights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, out = StateDirectory(tmp_path / "state"), tmp_path / "device.html"
    state.prepare()
    store = Store(state.store)
    journal = Journal(store)
    compared = {"score": "accuracy", "candidate_accuracy": 0.9, "reference_accuracy": 0.85, "examples": 120}
    for outcome, reason in (("released", "device: better"), ("rejected", HOSTILE), ("failed", "the trainer died")):
        row = journal.start("collected", change=1, base="000000-00000000", details={})
        decision = {} if outcome == "failed" else {"decision": {"device": compared, "base": None}}
        details = {"reason": reason, "training": {"seconds": 12.4, "peak_rss_mib": 110.2}, **decision}
        journal.update(row, state=FINISHED, outcome=outcome, candidate="000001-ab", details=details)
    journal.update(
        journal.start("collected", change=2, base="000001-ab", details={"decision": 7}), details={"training": []}
    )
    store.close()
    assert main(["report", str(state.root), "--html", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sections"] == ["nights"]
    parsed = Parsed(out.read_text())
    cells = [data for tag, data in parsed.texts if tag == "td"]
    assert HOSTILE in cells and "the trainer died" in cells and HOSTILE not in out.read_text()
    assert cells.count("90.00%") == cells.count("85.00%") == 2 and cells.count("000001-ab") == 1
    assert "under way" in cells and "1 released" in parsed.text and "1 failed or discarded" in parsed.text


def test_an_evaluation_beside_a_run(run_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_directory / "eval.json").write_text(json.dumps(evaluation()))
    words = ["--eval", str(run_directory / "eval.json"), "--html", str(run_directory / "run.html")]
    assert main(["report", str(run_directory), *words]) == 0
    assert capsys.readouterr().out == f"{run_directory / 'run.html'}: run-1, evaluation\n"
    text = (run_directory / "run.html").read_text()
    assert HOSTILE not in text and HOSTILE in Parsed(text).text
