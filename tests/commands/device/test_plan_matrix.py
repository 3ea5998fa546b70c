"""`edge-far plan --profile all`, with a bundle and without one."""

from __future__ import annotations

import importlib.util
import json
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.cli import main
from edge_far.profile.document import builtin_names
from edge_far.report.matrix_text import bundle_matrix, ladder_matrix
from tests.faults.processes import fail, succeed

KEYS = {
    *("profile", "board", "method", "fits", "budget_mib", "needed_mib", "batch_size", "longest", "micro_batch"),
    *("step_graph", "predicted_peak_mib", "optimizer", "trained_parameters", "bundle_mib", "run_mib", "cache_mib"),
    *("cache_mib_1000", "step_gflop", "fill_gflop", "step_seconds", "disk_mib"),
}
DOCUMENT_KEYS = {
    *("bundle", "model", "profile", "fits", "methods", "pooling", "frozen_precision", "data", "rows", "left_out"),
    "times_from",
}


@pytest.fixture(scope="module")
def root(tiny_bundle: Callable[[str], Bundle]) -> str:
    return str(tiny_bundle("bert-top1-5").root)


def table_of(text: str) -> dict[str, list[str]]:
    """Return the cells of a Markdown table's rows by their first."""
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if " | " in line]
    return {row[0]: row[1:] for row in cells}


def test_a_row_for_every_board(root: str, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--profile", "all", "--train", str(tiny_data), "--no-probe", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == DOCUMENT_KEYS and document["fits"] is True and document["profile"] == "all"
    assert sorted(row["profile"] for row in document["rows"]) == builtin_names()
    assert all(set(row) == KEYS and row["fits"] and row["method"] == "top-1" for row in document["rows"])
    assert all(row["cache_mib"] > 0 and row["step_seconds"] is None for row in document["rows"])


def test_the_table_says_what_the_document_says(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--profile", "all", "--batch-size", "512", "--no-probe"]) == 0
    table = table_of(capsys.readouterr().out)
    assert main(["plan", root, "--profile", "all", "--batch-size", "512", "--no-probe", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert table["board"][0] == "budget, MiB" and len(rows) == len(builtin_names())
    for row in rows:
        budget, fits, _, peak, disk, *_ = table[row["profile"]]
        assert (budget, fits) == (str(row["budget_mib"]), "yes")
        assert (peak, disk) == (f"{row['predicted_peak_mib']:.0f}", f"{row['disk_mib']:.0f}")


def test_where_nothing_fits_it_says_what_would(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--profile", "all", "--no-probe", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "none fits" not in bundle_matrix(document)
    for number, row in enumerate(document["rows"]):
        row |= {"fits": False, "needed_mib": 900 + number, "predicted_peak_mib": None, "micro_batch": None}
    assert "none fits   the least of these needs 900 MiB: take shorter texts" in bundle_matrix(document)
    ladder = {**document, "fits": False, "model": "tiny"}
    assert "none fits   the least of these needs 900 MiB" in ladder_matrix(ladder)


@pytest.mark.device
@pytest.mark.skipif(platform.machine() != "x86_64", reason="this machine may be a board")
def test_times_stand_in_the_row_of_this_machine_alone(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", root, "--profile", "all", "--threads", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    timed = [row["profile"] for row in document["rows"] if row["step_seconds"] is not None]
    assert timed == ["workstation"] and "1 thread," in document["times_from"]


def test_what_contradicts_itself_is_refused(root: str, tiny_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        [],
        [root, "--model", "tiny"],
        [root, "--methods", "head"],
        [root, "--pooling", "mean"],
        [root, "--profile", "all", "--budget-mib", "300"],
        ["--model", "tiny", "--train", str(tiny_data)],
        ["--model", "tiny", "--methods", "head,tail"],
    ):
        assert main(["plan", *words, "--json"]) == 64, words
        assert json.loads(capsys.readouterr().out)["error"]["kind"] == "UsageError"
    assert main(["plan", "--model", "no-such-directory", "--json"]) == 66


@pytest.mark.device
def test_a_device_says_that_it_cannot_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert importlib.util.find_spec("torch") is None
    error = fail(69, "plan", "--model", "tiny", "--methods", "head", says="torch is not installed")
    assert error["where"] == "--model" and error["hint"] == "run this on the workstation, or name a bundle"


@pytest.mark.host
def test_a_geometry_is_compiled_once_and_then_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--model", "tiny", "--methods", "top-half", "--max-seq-len", "64"]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == DOCUMENT_KEYS and document["methods"] == ["top-half"]
    assert sorted(row["profile"] for row in document["rows"]) == builtin_names()
    # By hand: the upper of two blocks, width 128, FFN 512, a tenth of which learns: 51 nodes, their weights to and fro
    # and biases, all of attention, two LayerNorms, the FFN's output bias; pooler; head of two labels.
    block = 51 * (2 * 128 + 1) + 4 * (128 * 128 + 128) + 2 * 2 * 128 + 128
    assert {row["trained_parameters"] for row in document["rows"]} == {block + 128 * 128 + 128 + 2 * 128 + 2}
    monkeypatch.setattr("edge_far.bench.geometry_manifests.missing_for_compiling", lambda: "torch is not installed")
    assert main(words) == 0
    told = capsys.readouterr()
    assert "compiling" not in told.err
    row = next(row for row in document["rows"] if row["profile"] == "rpi3b-1gb")
    assert table_of(told.out)["rpi3b-1gb"][-1] == f"{row['predicted_peak_mib']:.0f} / {row['micro_batch']}"


@pytest.mark.host
def test_a_method_that_an_architecture_has_not_is_named(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "embedding_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {"model_type": "albert", "vocab_size": 99, "intermediate_size": 64, **sizes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fail(69, "plan", "--model", tmp_path, "--methods", "top-1", says="all blocks of ALBERT are one and the same")


def test_one_board_of_a_bundle_is_still_a_plan(root: str) -> None:
    assert "rows" in (document := succeed("plan", root, "--profile", "rpi4-2gb", "--budget-mib", "8000", "--no-probe"))
    assert document["rows"]["64"] >= 1 and document["profile"] == "rpi4-2gb"
