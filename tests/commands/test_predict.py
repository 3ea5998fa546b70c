"""Where the texts of `edge-far predict` may stand on the command line."""

from __future__ import annotations

import pytest

from edge_far import cli


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
