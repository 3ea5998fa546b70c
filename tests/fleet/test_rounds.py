"""Rounds on a server's disk: where a restart goes on, and what a kill leaves."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.bundles.arrays import read_learners, write_arrays
from edge_far.errors import ConfigError, InputMissing
from edge_far.fleet.server.plan import FleetPlan
from edge_far.fleet.server.rounds import Rounds, Settings
from tests.tiny_cases import REPOSITORY

SETTINGS = Settings("0" * 64, "fedadam", "float32")


def learners(value: float) -> dict[str, np.ndarray]:
    return {"w": np.full((2, 3), value, np.float32)}


def record(number: int) -> dict[str, Any]:
    return {"round": number, "seconds": 1.0, "bytes_down": 1, "bytes_up": 1, "nodes": {}, "central": None}


@pytest.fixture
def first(tmp_path: Path) -> Path:
    write_arrays(tmp_path / "first.safetensors", learners(0))
    return tmp_path / "first.safetensors"


def test_it_goes_on_behind_the_newest_complete_round(tmp_path: Path, first: Path) -> None:
    rounds = Rounds(tmp_path / "fleet")
    found = rounds.open(SETTINGS, first)
    assert found.round == 0 and np.array_equal(found.learners["w"], learners(0)["w"])
    for number in (1, 2, 3):
        rounds.finish(number, learners(number), {"m.w": np.full(2, number, np.float32)}, record(number))
    # What a server leaves that is killed in the midst of keeping round 4.
    half = tmp_path / "fleet" / "rounds" / ".000004.77-abcdef.tmp"
    half.mkdir()
    (half / "learners.safetensors").write_bytes(b"half")
    found = Rounds(tmp_path / "fleet").open(SETTINGS, first)
    assert found.round == 3 and found.learners["w"][0, 0] == 3 and found.moments["m.w"][0] == 3
    assert not half.exists()
    assert [one["round"] for one in rounds.records()] == [1, 2, 3]
    assert not (tmp_path / "fleet" / "rounds" / "000001" / "learners.safetensors").exists()


def test_another_fleets_directory_is_refused(tmp_path: Path, first: Path) -> None:
    Rounds(tmp_path / "fleet").open(SETTINGS, first)
    for other in (Settings("1" * 64, "fedadam", "float32"), Settings("0" * 64, "fedavg", "float32")):
        with pytest.raises(ConfigError, match="was"):
            Rounds(tmp_path / "fleet").open(other, first)
    with pytest.raises(InputMissing):
        Rounds(tmp_path / "nothing").records()


def test_a_release_says_what_it_is_and_who_has_taken_it(tmp_path: Path, first: Path) -> None:
    rounds = Rounds(tmp_path / "fleet")
    rounds.open(SETTINGS, first)
    assert rounds.released_round() is None and rounds.offered() == set()
    rounds.publish(5, learners(5), SETTINGS.bundle)
    rounds.note_offered({"17"})
    rounds.note_offered({"4"})
    assert rounds.released_round() == 5 and rounds.offered() == {"17", "4"}
    assert read_learners(rounds.release / "learners.safetensors")["w"][0, 0] == 5
    rounds.publish(6, learners(6), SETTINGS.bundle)
    assert rounds.offered() == set()


# --- the plan -----------------------------------------------------------------------------------------------------


def app_settings() -> dict[str, Any]:
    document = tomllib.loads((REPOSITORY / "deploy/fleet-app/pyproject.toml").read_text())
    found: dict[str, Any] = document["tool"]["flwr"]["app"]["config"]
    return found


def test_the_app_names_every_setting_and_no_other() -> None:
    assert [name.replace("-", "_") for name in app_settings()] == [field.name for field in fields(FleetPlan)]
    plan = FleetPlan.of({**app_settings(), "bundle": "/b", "state": "/s"})
    order = plan.order("train", "0" * 64, 7)
    assert order.round == 7 and order.seed == 7 and 0 < order.wait_s < plan.round_seconds


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bundle": ""}, "'bundle' names no directory"),
        ({"rounds": -1}, "rounds"),
        ({"strategy": "krum"}, "krum"),
        ({"fraction": 0.0}, "fraction"),
        ({"strategy": "fedprox"}, "proximal-mu above 0"),
        ({"proximal-mu": 0.1}, "fedprox"),
        ({"privacy-noise": 1.0}, "clip-norm"),
        ({"privacy-noise": 1.0, "clip-norm": 1.0, "traffic": "int8"}, "float32"),
        ({"privacy-noise": 1.0, "clip-norm": 1.0, "strategy": "trimmed"}, "fedavg"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        FleetPlan.of({**app_settings(), "bundle": "/b", "state": "/s", **wrong})
