"""Interruptions: saved more often, then a smaller plan, and never the data's fault."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from edge_far.daemon.report.status_text import render
from edge_far.daemon.training.interruptions import EVERY_STEP, SMALLER_PLAN, Interruptions
from tests.daemon.field import Field, wait_for


def after(newest: list[str]) -> Interruptions:
    """Return what is known after starts from these checkpoints, none of whose ends was seen."""
    found = Interruptions()
    for name in newest:
        found = found.started(name)
    return found


def minutes(found: Interruptions) -> float:
    option, value = found.checkpoint_options()
    assert option == "--checkpoint-minutes"
    return float(value)


def test_fruitless_interruptions_halve_the_interval_down_to_every_step() -> None:
    intervals = [minutes(after([""] * count)) for count in range(1, EVERY_STEP + 1)]
    assert intervals[0] == 2.0 and all(later == earlier / 2 for earlier, later in pairwise(intervals))
    assert after([""] * (EVERY_STEP + 1)).checkpoint_options() == ["--checkpoint-steps", "1"]


def test_getting_ahead_doubles_it_again() -> None:
    found = after(["", "", "", "step-00000001", "step-00000002"])
    assert (found.count, found.fruitless) == (4, 0)
    assert minutes(after(["", "", "", "step-00000001"])) == 1.0


def test_an_end_that_was_seen_is_no_interruption() -> None:
    found = after([""]).ended().started("").ended().started("")
    assert found.count == 0 and found.describe() == ""


def test_a_smaller_plan_is_asked_for_at_last_and_gets_its_own_chance() -> None:
    assert not after([""] * SMALLER_PLAN).ask_for_smaller_plan
    found = after([""] * (SMALLER_PLAN + 1))
    assert found.ask_for_smaller_plan
    again = found.with_smaller_plan().started("")
    assert not again.ask_for_smaller_plan and again.count == SMALLER_PLAN
    assert again.checkpoint_options() == ["--checkpoint-steps", "1"]


def test_it_survives_json_and_is_told() -> None:
    found = after(["", ""])
    assert Interruptions.of(json.loads(json.dumps(found.as_details()))) == found
    assert found.describe() == "interrupted once, 1 of them without getting ahead: it saves every 60 s now"
    assert (
        after([""] * 7)
        .describe()
        .endswith("interrupted 6 times, 6 of them without getting ahead: it saves at every step now")
    )


def steps(field: Field) -> int:
    try:
        return field.run_log.read_text().count('"event": "step"')
    except OSError:
        return 0


def interrupt(field: Field) -> None:
    """Start the daemon and kill it when its trainer has done three steps."""
    before = steps(field)
    process = field.start()
    wait_for(lambda: steps(field) >= before + 3)
    process.kill()
    process.communicate()


def details(field: Field) -> dict[str, Any]:
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        (text,) = connection.execute("SELECT details FROM cycles ORDER BY id DESC LIMIT 1").fetchone()
    found: dict[str, Any] = json.loads(text)
    return found


def edit(field: Field, change: Callable[[dict[str, Any]], None]) -> None:
    found = details(field)
    change(found)
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        connection.execute("UPDATE cycles SET details = ?", (json.dumps(found),))


@pytest.mark.device
def test_power_that_fails_after_every_step_still_lets_it_get_ahead(field: Field) -> None:
    field.feed(1500)
    for _ in range(EVERY_STEP + 4):
        interrupt(field)
    assert len(list(field.run_log.parent.glob("checkpoints/step-*"))) >= 1
    status = field.status()
    assert f"interrupted {EVERY_STEP + 3} times" in render(status)
    assert any("look at the supply" in line for line in status["advice"])
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "released" and "deaths" not in cycle["details"]
    assert field.status()["examples"]["set_aside"] == 0


@pytest.mark.device
def test_where_no_step_fits_between_two_interruptions_a_smaller_plan_is_taken(field: Field) -> None:
    field.feed(900)
    interrupt(field)
    edit(field, lambda found: found["interruptions"].update(fruitless=SMALLER_PLAN - 1))
    cycle = field.once()["cycle"]
    assert cycle["outcome"] == "released"
    assert cycle["details"]["micro_batch_limit"] == 2  # half of the bundle's batch of 4
    assert "set_aside" not in cycle["details"]


@pytest.mark.device
def test_interruptions_and_a_death_that_was_seen_are_told_apart(field: Field) -> None:
    from tests.daemon.field import has_stepped, kill_trainer

    field.feed(1500)
    for _ in range(3):
        interrupt(field)
    process = field.start()
    wait_for(lambda: steps(field) > 0 and has_stepped(field))
    kill_trainer(process)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found = json.loads(output)["cycle"]
    assert found["outcome"] == "released" and len(found["details"]["deaths"]) == 1
    assert found["details"]["interruptions"]["count"] == 3
