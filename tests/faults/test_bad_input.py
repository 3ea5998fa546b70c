"""What a user can give wrongly: each case with its exit code and one line that says what, where and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import FORMAT
from tests.faults.processes import fail, succeed
from tests.foreign_tokens import FOREIGN, with_foreign_token

pytestmark = pytest.mark.device

GOOD = '{"text": "w1 w2", "label": "label-0"}\n'


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Callable[[str], Bundle]) -> Path:
    return tiny_bundle("tiny-fp32").root


@pytest.fixture(scope="module")
def finished(bundle: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    succeed("train", bundle, "--train", tiny_data, "--out", run)
    return run


@pytest.mark.parametrize(
    ("name", "content", "where", "says"),
    [
        ("empty.jsonl", b"", "", "the file is empty"),
        ("blank.jsonl", b"\n\n", "", "holds no examples"),
        ("broken.jsonl", (GOOD + '{"text": "w1", "lab\n').encode(), ":2", "broken JSON at column"),
        ("number.jsonl", (GOOD + "17\n").encode(), ":2", "instead of an object"),
        ("label.jsonl", (GOOD + '{"text": "w1", "label": "label-9"}\n').encode(), ":2", "unknown label 'label-9'"),
        ("unlabelled.jsonl", (GOOD + '{"text": "w1"}\n').encode(), ":2", "no label"),
        ("latin1.jsonl", (GOOD + '{"text": "caf\xe9"}\n').encode("latin-1"), ":2", "not UTF-8: byte 0xe9"),
        ("utf16.jsonl", GOOD.encode("utf-16"), ":1", "UTF-16"),
        ("headless.csv", b"lights on,light_on\nw3,label-1\n", ":1", "no header"),
        ("unlabelled.csv", b"text\nw1\n", ":1", "no column 'label'"),
        ("data.xml", b"<a/>", "", "unknown data format '.xml'"),
    ],
)
def test_data(name: str, content: bytes, where: str, says: str, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    error = fail(65, "train", bundle, "--train", path, "--out", tmp_path / "run", says=says)
    assert error["where"] == f"{path}{where}" and error["hint"]
    assert not (tmp_path / "run").exists(), "nothing is left behind"


def test_data_that_is_not_there(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    none, out = tmp_path / "none.jsonl", tmp_path / "run"
    for options in (["--train", none], ["--train", tiny_data, "--eval", none]):
        assert fail(66, "train", bundle, *options, "--out", out)["where"] == str(none)
    fail(65, "train", bundle, "--train", tmp_path, "--out", out, says="is a directory")
    fail(66, "eval", bundle, "--data", none)
    fail(66, "plan", bundle, "--train", none)
    assert not out.exists()


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("memory:\n  budget_mb: 300\n", "memory.budget_mb"),
        ("memory:\n  budget_mib: plenty\n", "At 'memory.budget_mib'"),
        ("memory:\n  budget_mib: 300 MiB\n", "At 'memory.budget_mib'"),
        ("memory:\n  budget_mib: 300\ncompute:\n  threads: 0\n", "At 'compute.threads'"),
        ("- memory\n", "profile"),
    ],
)
def test_profile(yaml: str, says: str, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml)
    fail(78, "plan", bundle, "--profile", path, says=says)


def test_unknown_profile(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    fail(78, "plan", bundle, "--profile", "rpi-zero2w", says="did you mean rpi-zero2w-512?")
    fail(66, "plan", bundle, "--profile", tmp_path / "none.yaml")


@pytest.mark.parametrize("budget", ["0", "-5", str(10**12)])
def test_absurd_budget(budget: str, bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    arguments = ["train", bundle, "--train", tiny_data, "--out", tmp_path / "run", "--budget-mib", budget]
    fail(78, *arguments, says=f"must be from 1 to 1048576 MiB, not {budget}")


@pytest.mark.parametrize(
    ("options", "where", "says"),
    [
        (["--threads", "0"], "--threads", "from 1 to 1024, not 0"),
        (["--learning-rate", "0"], "--learning-rate", "not 0"),
        (["--learning-rate", "nan"], "--learning-rate", "not nan"),
        (["--learning-rate", "2"], "--learning-rate", "not 2"),
        (["--max-seq-len", "128"], "--max-seq-len", "the bundle reads at most 64 tokens, not 128"),
        (["--max-seq-len", "0"], "--max-seq-len", "not 0"),
        (["--batch-size", "0"], "--batch-size", "not 0"),
        (["--epochs", "0"], "--epochs", "not 0"),
        (["--max-steps", "0"], "--max-steps", "not 0"),
        (["--seed", "-1"], "--seed", "not -1"),
        (["--micro-batch", "0"], "--micro-batch", "at least 1, not 0"),
        (["--checkpoint-steps", "0"], "--checkpoint-steps", "at least 1, not 0"),
        (["--checkpoint-minutes", "nan"], "--checkpoint-minutes", "not nan"),
    ],
)
def test_settings(options: list[str], where: str, says: str, bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    error = fail(78, "train", bundle, "--train", tiny_data, "--out", tmp_path / "run", *options, says=says)
    assert error["where"] == where
    assert not (tmp_path / "run").exists()


def test_usage(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    train = ["train", bundle, "--train", tiny_data, "--out", tmp_path / "run"]
    fail(64, *train, "--epochs", "three", says="invalid int value")
    fail(64, *train, "--backend", "cuda", says="invalid choice")
    fail(64, "train", bundle, "--train", tiny_data, says="required: --out")
    fail(64, "predict", bundle, says="no text to classify")
    fail(64, "predict", bundle, "", says="no text to classify")
    fail(64, "predict", bundle, "w1", "--data", tiny_data, says="two sources")
    fail(64, "predict", bundle, "w1", "--top", "0", says="at least 1")
    fail(65, "predict", bundle, "-", input=b"w1 w2\nw\xff3\n", says="standard input:2: not UTF-8")


def test_backend_that_is_not_installed(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    arguments = ["train", bundle, "--train", tiny_data, "--out", tmp_path / "run", "--backend", "ort-training"]
    fail(69, *arguments, says="use --backend portable")
    assert not (tmp_path / "run").exists()


def test_output_that_exists(bundle: Path, tiny_data: Path, tmp_path: Path, finished: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out, hint in (
        (tmp_path / "full", "choose another"),
        (tmp_path / "file", "choose another"),
        (finished, "--res"),
    ):
        error = fail(73, "train", bundle, "--train", tiny_data, "--out", out, says="exists already")
        assert error["hint"].startswith(hint) or hint in error["hint"]
    fail(73, "merge", bundle, "--run", finished, "--out", tmp_path / "full", says="exists already")
    assert (tmp_path / "full" / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_resume_without_a_run(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    arguments = ["train", bundle, "--train", tiny_data, "--out", tmp_path / "run", "--resume"]
    fail(66, *arguments, says="no run to resume")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--epochs", "2"], "--epochs"),
        (["--learning-rate", "0.5"], "--learning-rate"),
        (["--seed", "1"], "--seed"),
        (["--no-dropout"], "--dropout"),
        (["--eval", "{data}"], "--eval"),
        (["--train", "{other}"], "--train"),
    ],
)
def test_resume_of_another_run(
    options: list[str], where: str, bundle: Path, tiny_data: Path, finished: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(GOOD)
    filled = [option.format(data=tiny_data, other=other) for option in options]
    before = sorted(finished.rglob("*"))
    error = fail(78, "train", bundle, "--train", tiny_data, "--out", finished, "--resume", *filled)
    assert error["where"] == where
    assert sorted(finished.rglob("*")) == before


def test_run_of_another_bundle(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, finished: Path, tmp_path: Path
) -> None:
    other = tiny_bundle("tiny-int8").root
    resumed = ["train", other, "--train", tiny_data, "--out", finished, "--resume"]
    assert fail(78, *resumed, says="the bundle differs")["where"] == "BUNDLE"
    for command in (["eval", "--data", tiny_data], ["predict", "w1"], ["merge", "--out", tmp_path / "model"]):
        fail(78, command[0], other, "--run", finished, *command[1:], says="trained from another bundle")


def test_run_that_is_not_there_or_not_finished(bundle: Path, finished: Path, tmp_path: Path) -> None:
    for run, says in ((tmp_path / "none", "no such run"), (tmp_path, "no result yet")):
        fail(66, "merge", bundle, "--run", run, "--out", tmp_path / "model", says=says)
    damaged = tmp_path / "damaged"
    shutil.copytree(finished, damaged)
    content = bytearray((damaged / "learners.safetensors").read_bytes())
    content[-1] ^= 1
    (damaged / "learners.safetensors").write_bytes(content)
    fail(65, "merge", bundle, "--run", damaged, "--out", tmp_path / "model", says="does not match result.json")
    (damaged / "result.json").write_text("{")
    fail(65, "predict", bundle, "--run", damaged, "w1", says="the run is damaged")
    assert not (tmp_path / "model").exists()


def test_text_with_a_token_that_the_model_does_not_have(bundle: Path, tmp_path: Path) -> None:
    foreign = with_foreign_token(bundle, tmp_path / "bundle")
    data, left_out = tmp_path / "data.jsonl", tmp_path / "left-out.json"
    data.write_text(GOOD + GOOD.replace("w2", FOREIGN))
    says = f"example 2 has the token '{FOREIGN}' (id 100), and the model knows 100 tokens: "
    train = ["train", foreign, "--train", data, "--out", tmp_path / "run"]
    for command in (train, ["eval", foreign, "--data", data]):
        assert fail(65, *command, says=says)["where"] == str(data)
    for texts in (["--data", data], ["w1 w2", f"w1 {FOREIGN}"]):
        fail(65, "predict", foreign, *texts, says=says)
    assert not (tmp_path / "run").exists()
    assert len(succeed("predict", foreign, "w1 w2")["predictions"]) == 1
    assert succeed(*train, "--left-out", left_out)["steps"] > 0
    assert list(json.loads(left_out.read_bytes())) == ["1"]


def test_evaluation_on_unlabelled_data(bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "new.jsonl"
    data.write_text('{"text": "w1 w2"}\n')
    fail(65, "eval", bundle, "--data", data, says="no label")
    assert len(succeed("predict", bundle, "--data", data)["predictions"]) == 1


@pytest.mark.parametrize(
    "name", ["portable/weights.bin", "portable/step.onnx", "tokenizer.json", "learners.safetensors"]
)
def test_bundle_with_one_changed_byte(name: str, bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "bundle"
    shutil.copytree(bundle, damaged)
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / name).write_bytes(content)
    arguments = ["train", damaged, "--train", tiny_data, "--out", tmp_path / "run"]
    assert fail(65, *arguments, says="does not match manifest.json")["where"] == str(damaged / name)


def test_bundle_of_a_newer_format_or_none(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    newer = tmp_path / "bundle"
    shutil.copytree(bundle, newer)
    manifest: dict[str, Any] = json.loads((newer / "manifest.json").read_bytes())
    (newer / "manifest.json").write_text(json.dumps({**manifest, "format": FORMAT + 1}))
    fail(65, "plan", newer, says="newer than this edge-far reads")
    (newer / "manifest.json").write_text("{")
    fail(65, "plan", newer, says="damaged")
    fail(66, "plan", tmp_path, says="no bundle here")
    fail(66, "plan", tmp_path / "none", says="no bundle here")


def test_budget_that_is_too_small_names_one_that_works(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    arguments = ["train", bundle, "--train", tiny_data, "--out", tmp_path / "run", "--eval", tiny_data]
    error = fail(78, *arguments, "--budget-mib", "20", apart=True)
    assert error["kind"] == "BudgetError" and not (tmp_path / "run").exists()
    needed = error["hint"].split("raise the budget to ")[1].split(",")[0]
    document = succeed(*arguments, "--budget-mib", needed, apart=True)
    assert document["peak_rss_mib"] <= document["budget_mib"] == float(needed)


def test_learning_rate_that_is_far_too_high(bundle: Path, tiny_data: Path, tmp_path: Path) -> None:
    arguments = ["train", bundle, "--train", tiny_data, "--out", tmp_path / "run", "--learning-rate", "1.0"]
    error = fail(78, *arguments, "--epochs", "20", says="training diverged")
    assert error["where"] == "--learning-rate"
