"""The host's samples on the device: they train, and measure forgetting, on samples of their own where there are any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.daemon.field import PROFILE, Field

pytestmark = pytest.mark.device


def samples(path: Path, count: int, start: int) -> Path:
    """Write examples that the tiny model can read, none of them twice."""
    lines = [{"text": f"w{n % 95} w{n // 95} w7", "label": f"label-{n % 5}"} for n in range(start, start + count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def examples_of(field: Field) -> dict[str, int]:
    last = field.status()["last_cycle"]
    found: dict[str, int] = last["examples"]
    base = last["decision"]["base"]
    return {**found, "compared": base["examples"] if base else 0}


def test_half_of_the_replay_measures_where_there_is_nothing_else(field: Field) -> None:
    field.profile.write_text(PROFILE.replace("min_new", "use_replay: true, min_new"))
    field.feed(400)
    field.once("--replay", samples(field.root / "replay.jsonl", 300, 0))
    found = examples_of(field)
    assert found["replay"] + found["base.jsonl"] == 300 and min(found["replay"], found["base.jsonl"]) > 100
    assert found["compared"] == found["base.jsonl"]


def test_base_samples_measure_and_all_the_replay_trains(field: Field) -> None:
    field.profile.write_text(PROFILE.replace("min_new", "use_replay: true, min_new"))
    field.feed(400)
    replay, base = samples(field.root / "replay.jsonl", 300, 0), samples(field.root / "base.jsonl", 120, 300)
    field.once("--replay", replay, "--base", base)
    found = examples_of(field)
    assert (found["replay"], found["base.jsonl"], found["compared"]) == (300, 120, 120)


def test_samples_stay_out_where_the_profile_does_not_ask_for_them(field: Field) -> None:
    field.feed(400)
    field.once("--replay", samples(field.root / "replay.jsonl", 300, 0))
    assert "replay" not in examples_of(field) and examples_of(field)["compared"] == 0
