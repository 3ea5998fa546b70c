"""`edge-far plan`: what it says fits, what it refuses, and that nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from edge_far.device.planning.machine_speed import machine_name
from tests.board_calibration import of_a_board
from tests.faults.processes import edge_far_here, succeed

BUDGET = "8000"  # a plan counts what its process holds already, and that is the tests' here


@pytest.fixture(scope="module")
def root(tiny_bundle: Callable[[str], Bundle]) -> str:
    return str(tiny_bundle("tiny-fp32").root)


def test_document(root: str) -> None:
    document = succeed("plan", root, "--profile", "rpi4-2gb", "--budget-mib", BUDGET)
    assert document["fits"] is True and document["profile"] == "rpi4-2gb" and document["budget_mib"] == 8000
    assert document["longest"] == 64 and list(document["rows"]) == [str(length) for length in range(8, 65, 8)]
    parts = document["parts_mib"]
    assert set(parts) == {
        "runtime",
        "parameters",
        "gradients",
        "optimiser",
        "constants",
        "embeddings",
        "activations",
    }
    assert document["optimizer"] == "adamw"
    assert document["optimizer_mib"].keys() == {"adamw", "adamw8bit", "lion", "sgd"}
    assert document["optimizer_mib"]["adamw"] == parts["optimiser"]
    assert document["predicted_peak_mib"] == pytest.approx(sum(parts.values()), abs=0.5)


def test_the_optimiser_comes_from_the_profile_or_the_option(root: str, tmp_path: Path) -> None:
    board = tmp_path / "board.yaml"
    board.write_text(f"memory: {{budget_mib: {BUDGET}}}\ntraining: {{optimizer: lion}}\n")
    for options, name in (([], "lion"), (["--optimizer", "adamw8bit"], "adamw8bit")):
        document = succeed("plan", root, "--profile", board, *options)
        assert document["optimizer"] == name
        assert document["optimizer_mib"][name] == document["parts_mib"]["optimiser"]
    done = edge_far_here("plan", root, "--profile", board)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("optimiser"))
    assert " MiB   lion; by kind: adamw 0.1, adamw8bit 0.1, lion 0.0, sgd 0.0" in line


def test_lengths_of_the_data(root: str, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--train", str(tiny_data), "--max-seq-len", "16", "--batch-size", "7", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["longest"] == 16 and document["batch_size"] == 7


def test_refusal_names_a_budget_that_is_enough(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--budget-mib", "9", "--json"]) == 78
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "BudgetError"
    needed = error["hint"].split("raise the budget to ")[1].split(",")[0]
    assert main(["plan", root, "--budget-mib", needed, "--no-probe"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fits ") and f"of {needed} MiB" in lines[0]
    assert lines[-3].split()[::2] == ["64", "step"] and lines[-1] == "times       none: this machine was not measured"


def test_times_are_those_of_this_machine_and_say_so(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    seconds = document["step_seconds"]
    assert list(seconds) == list(document["rows"]) == list(document["variants"])
    assert all(0 < time < 60 for time in seconds.values()) and seconds["64"] > seconds["8"]
    assert document["times_from"].startswith(machine_name())
    assert main(["plan", root, "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == f"times       predicted for this machine: {document['times_from']}"
    assert lines[-1].split()[:4] == ["they", "choose", "the", "micro-batch,"]
    assert lines[-4].split()[:3] == ["64", str(document["rows"]["64"]), "step"]
    assert float(lines[-4].split()[3]) == pytest.approx(seconds["64"], abs=1e-3)


def test_no_probe_makes_no_time_up(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--no-probe", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["step_seconds"] is None and document["times_from"] is None
    assert set(document["variants"].values()) == {"step"}


def test_times_of_another_machine(tiny_bundle: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = tiny_bundle("tiny-fp32")
    told = []
    for factor in (1.0, 3.0):
        kept = of_a_board(tmp_path / f"{factor}.json", bundle.manifest, factor)
        document = succeed("plan", bundle.root, "--profile", "rpi4-2gb", "--budget-mib", BUDGET, "--calibration", kept)
        assert document["times_from"] == "Raspberry Pi 4, 4 cores, 4 threads, onnxruntime 1.26.0"
        assert document["calibration"] == kept
        told.append(document)
    once, thrice = told
    assert once["rows"] == thrice["rows"] and once["variants"] == thrice["variants"]
    for length, seconds in once["step_seconds"].items():
        assert thrice["step_seconds"][length] == pytest.approx(3 * seconds, abs=2e-4)  # rounded to 0.1 ms
    done = edge_far_here("plan", bundle.root, "--calibration", kept)
    line = done.stdout.splitlines()[-1]
    assert line == f"times       predicted for another machine ({kept}): {once['times_from']}"


def test_a_calibration_that_does_not_belong_is_refused(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tiny_bundle("tiny-fp32")
    kept = Path(of_a_board(tmp_path / "kept.json", bundle.manifest))
    wrong = tmp_path / "wrong.json"
    document = json.loads(kept.read_text())

    def damaged(**parts: object) -> str:
        return json.dumps({**document, "measured": {**document["measured"], **parts}})

    another = "no calibration of this bundle: it was measured for another bundle's operators"
    damages = {
        "{": "is not JSON at line 1",
        json.dumps({**document, "format": 1}): "'format' is not 3: another version of edge-far wrote it",
        json.dumps({**document, "threads": 0}): "'threads' is 0",
        damaged(node_seconds=-1): "'measured.node_seconds' is -1",
        damaged(parameter_seconds={}): "'measured.parameter_seconds.adamw' is missing",
        damaged(kernels={}): another,
        damaged(kernels_beside=dict([next(iter(document["measured"]["kernels"].items()))])): another,
    }
    for text, says in damages.items():
        wrong.write_text(text)
        assert main(["plan", str(bundle.root), "--calibration", str(wrong), "--json"]) == 65, text
        error = json.loads(capsys.readouterr().out)["error"]
        assert says in error["message"] and error["where"] == str(wrong) and "--keep-calibration" in error["hint"]
    int8 = str(tiny_bundle("tiny-int8").root)
    assert main(["plan", int8, "--calibration", str(kept)]) == 65
    assert another in capsys.readouterr().err
    assert main(["plan", int8, "--calibration", str(tmp_path / "none.json")]) == 66
    for words in (["--threads", "2"], ["--profile", "all"], ["--no-probe"]):
        assert main(["plan", str(bundle.root), "--calibration", str(kept), *words]) == 64, words
