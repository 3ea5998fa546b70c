"""Which profile a command takes: on a board that is known, and on one that is not."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from edge_far.commands import profile_choice
from edge_far.commands.adaptation import daemon
from edge_far.commands.common import add_profile_arguments
from edge_far.commands.profile_choice import default_profile
from edge_far.commands.workstation import export
from edge_far.errors import ConfigError
from tests.doctor.boards import BOARDS, plant


def given(*words: str) -> str | None:
    parser = argparse.ArgumentParser()
    add_profile_arguments(parser)
    profile: str | None = parser.parse_args(words).profile
    return profile


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_choice, "ROOT", plant(BOARDS["rpi4-4gb"], tmp_path))


def test_on_a_board_that_is_known(pi: None) -> None:
    assert given("--profile", "auto") == "rpi4-4gb"
    assert given("--profile", "rpi5-8gb") == "rpi5-8gb"  # what is named wins
    assert given() is None
    assert default_profile("rpi-zero2w-512") == "rpi-zero2w-512"  # and what the bundle names
    assert default_profile("workstation") == "rpi4-4gb"  # which is no board
    assert default_profile("a-file-of-the-workstations") == "rpi4-4gb"


def test_the_variable_of_the_service_and_an_export_know_auto(pi: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_FAR_PROFILE", "auto")
    parser = argparse.ArgumentParser()
    daemon.add_arguments(parser)
    assert parser.parse_args([]).profile == "rpi4-4gb"
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    words = ["--model", "m", "--train", "t", "--out", "o"]
    assert parser.parse_args(words).profile == "workstation"
    assert parser.parse_args([*words, "--profile", "auto"]).profile == "rpi4-4gb"
    monkeypatch.setattr(profile_choice, "ROOT", Path("/nowhere"))
    assert parser.parse_args([*words, "--profile", "auto"]).profile == "workstation"


@pytest.mark.parametrize("name", ["workstation", None])
def test_on_a_machine_that_is_not_all_is_as_without_auto(
    name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_choice, "ROOT", plant(BOARDS[name] if name else {}, tmp_path))
    assert given("--profile", "auto") is None
    assert default_profile("workstation") == "workstation"
    assert default_profile("rpi4-2gb") == "rpi4-2gb"
    with pytest.raises(ConfigError, match="is not built in here"):
        default_profile("a-file-of-the-workstations")
