"""A number out of its bounds, and an empty word, is refused before a file is opened; a new option is held to it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

import pytest

from edge_far import cli
from edge_far.commands.arguments import AtLeast, Number, text_argument
from edge_far.errors import ConfigError, UsageError
from edge_far.json_file import Within

NOWHERE = "/nowhere/at/all"
HUGE = "1" + "0" * 400  # no float holds it


def actions(command: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser()
    cli._module(command).add_arguments(parser)
    return parser._actions


def needed(command: str) -> Iterator[str]:
    """Yield the words that a command needs, all of files that are not there."""
    for action in actions(command):
        if action.option_strings and action.required:
            yield from (action.option_strings[0], NOWHERE)
        elif not action.option_strings:
            yield next(iter(action.choices)) if action.choices else NOWHERE


NUMBERS = [
    (command, action.option_strings[0], action.type)
    for command in cli.COMMANDS
    for action in actions(command)
    if action.type in (int, float)
]
WRONG = [
    (command, option, value)
    for command, option, kind in NUMBERS
    for value in ("-1", HUGE if kind is int else "inf", *(("nan",) if kind is float else ()))
]


WORDS = [
    (command, action.option_strings[0])
    for command in cli.COMMANDS
    for action in actions(command)
    if action.option_strings and action.nargs is None and action.type is not text_argument
]


@pytest.mark.parametrize(("command", "option"), WORDS)
def test_an_empty_word_is_refused_first(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a path it would be the folder '.', and as a profile none, which asks for no signature."""
    for words in ([option, ""], [f"{option}="]):
        assert cli.main([command, *needed(command), *words, "--json"]) == 64
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["message"], error["where"]) == ("is empty", option)


def test_an_empty_path_among_the_positionals(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("verify", "train", "predict", "plan"):
        assert cli.main([command, "", "--json"]) == 64
        assert json.loads(capsys.readouterr().out)["error"]["where"] == "BUNDLE"


@pytest.mark.parametrize("variable", ["PROFILE", "BUNDLE", "REPLAY", "BASE"])
def test_an_empty_variable(variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(f"EDGE_FAR_{variable}", "")
    assert cli.main(["daemon", "--once", "--state", NOWHERE]) == 64
    assert f"EDGE_FAR_{variable}: is empty" in capsys.readouterr().err


def test_all_are_found() -> None:
    assert {(command, option) for command, option, _ in NUMBERS} >= {
        *(("export", "--seed"), ("train", "--seed"), ("bench", "--seed"), ("demo", "--seed"), ("plan", "--budget-mib")),
        *(("eval", "--threads"), ("predict", "--top"), ("daemon", "--interval-minutes"), ("store", "--limit")),
    }


@pytest.mark.parametrize(("command", "option", "value"), WRONG, ids=lambda word: word[:12])
def test_a_number_out_of_bounds_is_refused_first(
    command: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = cli.main([command, *needed(command), f"{option}={value}", "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["where"]) in ((64, option), (78, option)), error
    assert error["message"].startswith("must ") and len(error["message"]) < 120


@pytest.mark.parametrize(
    ("command", "option"), [(command, option) for command, option, _ in NUMBERS if "seed" in option]
)
def test_seeds_of_workstation_and_device_have_the_same_bounds(command: str, option: str) -> None:
    (action,) = (action for action in actions(command) if option in action.option_strings)
    assert isinstance(action, Number) and action.within == Within(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("within", "unit", "value", "told"),
    [
        (Within(1, 1024), "", "0", "must be from 1 to 1024, not 0"),
        (Within(1, 1 << 20), " MiB", "-5", "must be from 1 to 1048576 MiB, not -5"),
        (AtLeast(1), "", "0", "must be at least 1, not 0"),
        (AtLeast(1), "", str(2**63), f"must be at most {2**63 - 1}, not {2**63}"),
        (Within(0, 9), "", HUGE, f"must be from 0 to 9, not {HUGE[:39]}…"),
    ],
)
def test_what_is_said(within: Within, unit: str, value: str, told: str) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--number", action=Number, type=int, within=within, unit=unit)
    with pytest.raises(ConfigError) as raised:
        parser.parse_args([f"--number={value}"])
    assert (raised.value.message, raised.value.where) == (told, "--number")


def test_both_bounds_are_allowed_and_the_default_is_not_asked() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--share", action=Number, type=float, within=Within(0, 1), refusal=UsageError, default=7.0)
    assert [parser.parse_args(words).share for words in ([], ["--share", "0"], ["--share", "1"])] == [7.0, 0.0, 1.0]
    with pytest.raises(UsageError, match=r"from 0 to 1, not 1\.5"):
        parser.parse_args(["--share", "1.5"])
