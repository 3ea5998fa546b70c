"""`edge-far predict`: where its texts may stand on the command line, and what it makes of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far import cli
from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.commands.device import predict
from edge_far.device.evaluation import predict_logits
from edge_far.device.release import ReleasedModel
from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder
from tests.tiny_cases import Oracle


@pytest.mark.parametrize(
    "arguments",
    [
        ["b", "--run", "r", "one", "two"],
        ["b", "one", "two", "--run", "r"],
        ["b", "one", "--run", "r", "two"],
        ["--run", "r", "b", "one", "two"],
    ],
)
def test_texts_stand_before_or_after_the_options(arguments: list[str]) -> None:
    options = cli._build_parser("predict").parse_args(["predict", *arguments])
    assert (str(options.bundle), str(options.run), options.text) == ("b", "r", ["one", "two"])


def test_data_needs_no_text_and_a_dash_is_one() -> None:
    assert cli._build_parser("predict").parse_args(["predict", "b", "--data", "f.jsonl"]).text == []
    assert cli._build_parser("predict").parse_args(["predict", "b", "--top", "2", "-"]).text == ["-"]


def test_what_is_missing_is_the_bundle_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict"]) == 64
    assert "required: BUNDLE (see" in capsys.readouterr().err


def predictions(root: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert cli.main(["predict", root, "--json", *arguments]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["predictions"]
    return found


def test_probabilities_are_those_of_torch(
    tiny_bundle: Callable[[str], Bundle],
    oracle: Callable[[str], Oracle],
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle, expected = tiny_bundle("tiny-fp32"), oracle("tiny-fp32")
    model = ReleasedModel(bundle, read_arrays(bundle.path("learners.safetensors")), 1)
    encoded = Encoder(bundle.path("tokenizer.json"), 64).encode([Example("w1 w2 w3"), Example("w7")], None)
    np.testing.assert_allclose(model.logits(expected.batch(0)), expected.logits(0), atol=1e-5)
    logits = predict_logits(model.logits, encoded, bundle.manifest.task).astype(np.float64)
    odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = predictions(str(bundle.root), "w1 w2 w3", "w7", "--top", "9", capsys=capsys)
    assert [each["text"] for each in found] == ["w1 w2 w3", "w7"]
    for each, row in zip(found, odds, strict=True):
        assert [top["probability"] for top in each["top"]] == pytest.approx(sorted(row, reverse=True), abs=2e-6)
        assert each["label"] == each["top"][0]["label"] == bundle.manifest.labels[row.argmax()]


def test_texts_from_file_and_standard_input_are_the_same(
    tiny_bundle: Callable[[str], Bundle],
    tiny_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = str(tiny_bundle("tiny-fp32").root)
    texts = [json.loads(line)["text"] for line in tiny_data.read_text().splitlines()]
    from_file = predictions(root, "--data", str(tiny_data), capsys=capsys)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\r\n".join([*texts, ""]).encode())))
    from_input = predictions(root, "-", capsys=capsys)
    assert [each["text"] for each in from_file] == texts and from_input == from_file


BLANK = {"label": None, "probability": None}


def test_outputs_match_inputs_where_some_are_blank(
    tiny_bundle: Callable[[str], Bundle], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tiny_bundle("tiny-fp32").root)
    one, two = predictions(root, "w1 w2", "w3", capsys=capsys)
    expected = [one, {"text": "", **BLANK}, {"text": " \t", **BLANK}, two]
    assert predictions(root, "w1 w2", "", " \t", "w3", capsys=capsys) == expected
    for end in ("\n", "\r\n"):
        lines = end.join(["\ufeffw1 w2", "", " \t", "w3"]) + end
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        assert predictions(root, "-", capsys=capsys) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n\n")))
    assert predictions(root, "-", "--top", "2", capsys=capsys) == [{"text": "", **BLANK, "top": []}] * 2


def test_every_text_is_one_line_and_none_steers_the_terminal(
    tiny_bundle: Callable[[str], Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tiny_bundle("tiny-fp32").root)
    assert cli.main(["predict", root, "w1\nw2", "\x1b[2Jw1", "", "w1\u2028w2\u202e", "w1"]) == 0
    shown = capsys.readouterr().out.split("\n")
    ends = [r"  'w1\nw2'", r"  '\x1b[2Jw1'", "  -      ''", r"  'w1\u2028w2\u202e'", "  w1", ""]
    assert len(shown) == 6 and all(line.endswith(end) for line, end in zip(shown, ends, strict=True))
    document = {"task": "classify", "predictions": [{"text": "w1", "label": "on\x1b[2J\nor off", "probability": 0.5}]}
    assert predict.render(document) == r"'on\x1b[2J\nor off'      0.500  w1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no text to classify: standard input is empty"),
        (b"w1\rw2\r", "standard input:1: lines end in a carriage return alone (CR)"),
        (b"w1\n" + "w2\n".encode("utf-16-le"), "standard input:2: line holds NUL bytes"),
        ("w1\n".encode("utf-16"), "standard input:1: the file is UTF-16, not UTF-8"),
        (b"w1\n" + b"w" * ((1 << 20) + 1) + b"\n", "standard input:2: line longer than 1048576 bytes"),
    ],
)
def test_standard_input_that_is_no_text(
    content: bytes,
    says: str,
    tiny_bundle: Callable[[str], Bundle],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert cli.main(["predict", str(tiny_bundle("tiny-fp32").root), "-"]) == (65 if content else 64)
    assert says in capsys.readouterr().err


def test_a_merged_model_and_a_release_answer_like_their_bundle(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tiny_bundle("tiny-fp32").root)
    assert cli.main(["merge", root, "--out", str(tmp_path / "model")]) == 0
    capsys.readouterr()
    answers = []
    for source in (root, str(tmp_path / "model")):
        assert cli.main(["predict", source, "w1 w2 w3", "w4", "--max-seq-len", "16", "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["predictions"])
    assert [p["label"] for p in answers[0]] == [p["label"] for p in answers[1]]
    for bundle, model in zip(*answers, strict=True):
        assert model["probability"] == pytest.approx(bundle["probability"], abs=1e-5)
    assert cli.main(["predict", str(tmp_path / "model"), "w1", "--run", "r"]) == 64
    assert "a released model has its run inside" in capsys.readouterr().err


TOO_LONG = "--max-seq-len: the model does not read 65 tokens"


def test_a_long_text_is_cut_to_what_the_model_reads(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root, model = str(tiny_bundle("tiny-fp32").root), tmp_path / "model"
    assert cli.main(["merge", root, "--out", str(model)]) == 0
    long = " ".join(["w1", "w2", "w3"] * 500)
    (expected,) = predictions(root, long, capsys=capfd)
    for _ in ("new", "older"):
        (found,) = predictions(str(model), long, capsys=capfd)
        assert found["label"] == expected["label"]
        assert found["probability"] == pytest.approx(expected["probability"], abs=1e-5)
        for source in (root, str(model)):
            assert cli.main(["predict", source, long, "--max-seq-len", "65"]) == 78
            told = capfd.readouterr().err.splitlines()  # of ONNX Runtime as well, which writes past Python
            assert [line.partition(" (")[0] for line in told] == [f"edge-far: error: {TOO_LONG}"]
        (model / "release.json").unlink(missing_ok=True)
    assert cli.main(["predict", root, "w1", long]) == 0
    assert capfd.readouterr().err == "1 of 2 texts cut to 64 tokens\n"
    assert cli.main(["predict", root, "w1", "--max-seq-len", "100000"]) == 64


def test_an_absurd_number_of_threads_is_refused_before_anything_runs(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, model, data = str(tiny_bundle("tiny-fp32").root), str(tmp_path / "model"), str(tiny_data)
    assert cli.main(["merge", root, "--out", model]) == 0
    for number in ("99999", "0"):
        for arguments in (
            ["predict", model, "w1"],
            ["predict", model, "w1", "--profile", "rpi4-2gb"],
            ["predict", root, "w1"],
            ["eval", root, "--data", data],
            ["plan", root, "--train", data],
            ["train", root, "--train", data, "--out", str(tmp_path / "run")],
            ["bench", "--model", root],
        ):
            assert cli.main([*arguments, "--threads", number]) == 78, arguments
            assert f"--threads: must be from 1 to 1024, not {number}" in capsys.readouterr().err


def test_labels_of_another_number_are_one_line(
    tiny_bundle: Callable[[str], Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    assert cli.main(["merge", str(tiny_bundle("tiny-fp32").root), "--out", str(model)]) == 0
    (model / "labels.json").write_text('["a", "b"]')
    capsys.readouterr()
    assert cli.main(["predict", str(model), "w1"]) == 65
    (line,) = capsys.readouterr().err.splitlines()
    assert "labels.json: names 2 labels, the model has 5" in line
    (model / "model.onnx").unlink()
    assert cli.main(["predict", str(model), "w1"]) == 66
    assert "model.onnx: file does not exist" in capsys.readouterr().err


def test_the_likeliest_are_told_below_each_text(
    tiny_bundle: Callable[[str], Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(tiny_bundle("tiny-fp32").root), "w1 w2", "", "--top", "3"]
    assert cli.main([*words, "--json"]) == 0
    (told, _) = json.loads(capsys.readouterr().out)["predictions"]
    assert cli.main(words) == 0
    first, *candidates, blank = capsys.readouterr().out.splitlines()
    assert first.endswith("w1 w2") and blank.startswith("-") and len(candidates) == 3
    for line, each in zip(candidates, told["top"], strict=True):
        assert line.split() == [each["label"], f"{each['probability']:.3f}"]
