"""The cycles' rows: one change at a time, what counts as dealt with, damaged details."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import FINISHED, Journal


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.sqlite3") as opened:
        yield opened


def test_a_cycle_from_start_to_end(store: Store) -> None:
    journal = Journal(store)
    assert journal.under_way() is None and journal.consumed_change() == 0
    row = journal.start("collected", change=7, base="000000-00000000", details={"a": 1})
    row = journal.update(row, state="training", attempt=2, details={"b": None})
    assert journal.under_way() == row
    assert (row.state, row.attempt, row.details) == ("training", 2, {"a": 1, "b": None})
    row = journal.update(row, state=FINISHED, outcome="released", candidate="000001-00000000")
    assert journal.under_way() is None and journal.last(5) == [row]
    assert journal.consumed_change() == 7 and journal.outcomes() == {"released": 1}


@pytest.mark.parametrize(("outcome", "consumed"), [("released", 9), ("rejected", 9), ("failed", 9), ("discarded", 0)])
def test_which_outcomes_deal_with_the_data(store: Store, outcome: str, consumed: int) -> None:
    journal = Journal(store)
    row = journal.start("collected", change=9, base="x", details={})
    assert journal.consumed_change() == 0
    journal.update(row, state=FINISHED, outcome=outcome)
    assert journal.consumed_change() == consumed


def test_damaged_details_are_empty_details(store: Store, tmp_path: Path) -> None:
    journal = Journal(store)
    journal.start("collected", change=1, base="x", details={})
    with sqlite3.connect(tmp_path / "store.sqlite3") as connection:
        connection.execute("UPDATE cycles SET details = '{oops'")
    found = journal.under_way()
    assert found is not None and found.details == {}
