"""`edge-far train` as a user calls it: its document, its files, its text."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from edge_far.storage import sha256_of
from tests.file_systems import refuse_fsync

pytestmark = pytest.mark.device  # it trains: the workstation's ONNX Runtime is too old


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[[str], Bundle]) -> Bundle:
    return tiny_bundle("tiny-int8")


def train(
    bundle: Bundle, data: Path, run: Path, *options: str | Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    capsys.readouterr()
    arguments = ["train", bundle.root, "--train", data, "--out", run, "--json", *options]
    assert main([str(argument) for argument in arguments]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)  # the document is all that stdout holds
    return document


def test_document(bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held_out = tmp_path / "eval.jsonl"
    held_out.write_text("".join(tiny_data.read_text().splitlines(keepends=True)[:7]))
    run = tmp_path / "run"
    document = train(bundle, tiny_data, run, "--eval", held_out, "--epochs", "4", "--micro-batch", "2", capsys=capsys)
    assert document["steps"] == 12 and document["backend"] == "portable"
    assert document["seconds"] > 0 and document["examples_per_second"] == pytest.approx(
        48 / document["seconds"], rel=0.02
    )
    assert 0 < 12 * document["step_seconds"] <= document["seconds"] + 0.01
    predicted = document["predicted"]
    assert 0 < 12 * predicted["step_seconds"] < predicted["seconds"], "evaluations take time too"
    assert document["plan"]["step_seconds"].keys() == document["plan"]["rows"].keys()
    assert 0 < document["final_loss"] < 2 * math.log(5)
    assert document["eval"]["examples"] == 7 and 1 <= document["eval"]["step"] <= 12
    assert document["budget_mib"] == 8192 and document["peak_rss_mib"] > 20
    plan = document["plan"]
    assert (plan["micro_batch"], plan["accumulation"], plan["batch_size"]) == (2, 2, 4)
    assert set(plan["rows"].values()) == {2} and plan["longest"] == max(map(int, plan["rows"]))
    assert document["trained_parameters"] == bundle.manifest.trained_parameters
    assert document["trained_parameters"] == sum(a.size for a in read_arrays(run / "learners.safetensors").values())
    assert document["run"] == str(run) and document["step_downs"] == 0 and document["resumed_from_step"] is None
    assert document["learners_sha256"] == sha256_of(run / "learners.safetensors")
    assert json.loads((run / "result.json").read_bytes()) == {k: v for k, v in document.items() if k != "run"}


def test_the_optimiser_is_recorded_everywhere_and_never_changed(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    document = train(bundle, tiny_data, run, "--optimizer", "lion", "--learning-rate", "3e-4", capsys=capsys)
    assert document["optimizer"] == document["plan"]["optimizer"] == "lion"
    assert json.loads((run / "run.json").read_bytes())["settings"]["optimizer"] == "lion"
    start = json.loads((run / "log.jsonl").read_text().splitlines()[0])
    assert start["event"] == "start" and start["optimizer"] == "lion"
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert json.loads((checkpoint / "state.json").read_bytes())["optimizer"] == "lion"
    again = ["train", str(bundle.root), "--train", str(tiny_data), "--out", str(run), "--resume"]
    assert main([*again, "--learning-rate", "3e-4"]) == 78
    assert "--optimizer: the run was started with lion, not adamw" in capsys.readouterr().err
    default = train(bundle, tiny_data, tmp_path / "default", capsys=capsys)
    assert default["optimizer"] == "adamw"


def test_a_rate_that_was_chosen_for_adamw_is_warned_of(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "the learning rate 0.001 is the bundle's, chosen for AdamW"
    for number, (options, warned) in enumerate(
        (
            (["--optimizer", "lion"], True),
            (["--optimizer", "lion", "--learning-rate", "1e-4"], False),
            (["--optimizer", "sgd"], True),
            (["--optimizer", "adamw8bit"], False),
            ([], False),
        )
    ):
        run = tmp_path / str(number)
        arguments = ["train", str(bundle.root), "--train", str(tiny_data), "--out", str(run), "--max-steps", "1"]
        assert main([*arguments, *options]) == 0
        assert (warning in capsys.readouterr().err) == warned, options


def test_without_a_probe_nothing_is_predicted_and_the_bytes_are_the_same(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--epochs", "1", "--micro-batch", "1"]
    probed = train(bundle, tiny_data, tmp_path / "probed", *options, capsys=capsys)
    without = train(bundle, tiny_data, tmp_path / "without", *options, "--no-probe", capsys=capsys)
    assert without["predicted"] is None and without["plan"]["step_seconds"] is None
    assert probed["predicted"] is not None and probed["learners_sha256"] == without["learners_sha256"]


def test_result_is_the_best_evaluation_or_the_last_step(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = train(bundle, tiny_data, tmp_path / "best", "--eval", tiny_data, "--epochs", "6", capsys=capsys)
    events = [json.loads(line) for line in (tmp_path / "best" / "log.jsonl").read_text().splitlines()]
    evaluations = [event for event in events if event["event"] == "eval"]
    assert [event["step"] for event in evaluations] == [3, 6, 9, 12, 15, 18]
    first_best = max(evaluations, key=lambda event: event["accuracy"])
    assert best["eval"]["step"] == first_best["step"] and best["eval"]["accuracy"] == first_best["accuracy"]
    last = train(bundle, tiny_data, tmp_path / "last", "--epochs", "6", capsys=capsys)
    assert last["eval"] is None
    checkpoint = tmp_path / "last" / "checkpoints" / "step-00000018" / "learners.safetensors"
    assert (tmp_path / "last" / "learners.safetensors").read_bytes() == checkpoint.read_bytes()


def test_same_command_same_bytes_and_the_seed_matters(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--learning-rate", "0.003", "--epochs", "2"]
    hashes = [
        train(bundle, tiny_data, tmp_path / name, *options, *more, capsys=capsys)["learners_sha256"]
        for name, more in (("a", []), ("b", []), ("c", ["--seed", "1"]), ("d", ["--no-dropout"]))
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_resume_of_a_complete_run_returns_its_result(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(bundle, tiny_data, tmp_path / "run", capsys=capsys)
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    assert train(bundle, tiny_data, tmp_path / "run", "--resume", capsys=capsys) == first
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def test_starting_from_given_learners(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--learning-rate", "0.003", "--max-steps", "3", "--no-dropout"]
    train(bundle, tiny_data, tmp_path / "first", *options, capsys=capsys)
    learners = tmp_path / "first" / "learners.safetensors"
    second = train(bundle, tiny_data, tmp_path / "second", *options, "--learners", learners, capsys=capsys)
    losses = []
    for name in ("first", "second"):
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines if '"event": "step"' in line])
    assert losses[1][0] < losses[0][0]
    assert second["learners_sha256"] != sha256_of(learners)


def test_text_for_people(bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", str(bundle.root), "--train", str(tiny_data), "--out", str(run), "--max-steps", "2"]) == 0
    output = capsys.readouterr()
    assert [line.split()[0] for line in output.out.splitlines()] == ["trained", "memory", "plan", "numbers", "next"]
    assert f"edge-far merge BUNDLE --run {run}" in output.out
    assert "plan: 2 steps of 4 examples" in output.err and "ETA" in output.err


def test_evaluation_on_the_training_data_is_a_warning(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", bundle.root, "--train", tiny_data, "--eval", tiny_data, "--out", tmp_path / "run", "-q"]
    assert main([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr().err == (
        "warning: --eval is the training data: its accuracy says nothing about new texts\n"
    )


def test_quiet_says_nothing(
    bundle: Bundle, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(bundle, tiny_data, tmp_path / "run", "--quiet", "--max-steps", "2", capsys=capsys)
    assert capsys.readouterr().err == ""


def test_a_file_system_that_refuses_fsync_costs_one_warning(
    bundle: Bundle,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--epochs", "1", "--checkpoint-steps", "1", "--no-probe", "-q"]
    whole = train(bundle, tiny_data, tmp_path / "whole", *options, capsys=capsys)
    refuse_fsync(monkeypatch, errno.EINVAL)
    arguments = ["train", bundle.root, "--train", tiny_data, "--out", tmp_path / "run", "--json", *options]
    assert main([str(argument) for argument in arguments]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["learners_sha256"] == whole["learners_sha256"]
    (line,) = told.err.splitlines()
    assert line.startswith(f"warning: {tmp_path}") and "refuses fsync" in line


@pytest.mark.parametrize("command", ["train", "merge"])
def test_a_failing_disk_is_known_before_the_work(
    command: str,
    bundle: Bundle,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refuse_fsync(monkeypatch, errno.EIO)
    data = ["--train", str(tiny_data)] if command == "train" else []
    assert main([command, str(bundle.root), *data, "--out", str(tmp_path / "out")]) == 74
    assert f"{tmp_path}: cannot write: Input/output error" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
