"""The desk between two users: one order, one answer, and what neither takes from the other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import write_arrays
from edge_far.errors import InputMissing
from edge_far.fleet.desk import MOST_TEXT, Desk, Ticket
from edge_far.fleet.terms import Answer, Order, Refused

LEARNERS = {"w": np.arange(5, dtype=np.float32)}
ORDER = Order(kind="train", bundle="0" * 64, round=2, clip_norm=1.5)
TRAINED = Answer("trained", "", {"examples": 3.0})


def test_there_and_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.waiting() is None and desk.last_answer() is None
    id = desk.place(ORDER, LEARNERS)
    ticket = desk.waiting()
    assert ticket == Ticket(id, ORDER) and not desk.is_taken(id)
    received = tmp_path / "own" / "received.safetensors"
    received.parent.mkdir()
    assert desk.take(ticket, received) and desk.is_taken(id) and received.is_file()
    assert desk.answer(id) is None
    desk.lay_answer(id, TRAINED, {"w": LEARNERS["w"] + 1})
    assert desk.waiting() is None and desk.last_answer() == TRAINED
    found = desk.answer(id)
    assert found is not None and found[0] == TRAINED and np.array_equal(found[1]["w"], LEARNERS["w"] + 1)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir() if path.is_file()} == {0o640}


def test_a_later_order_takes_the_place_and_an_old_answer_is_nobodys(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first = desk.place(ORDER, LEARNERS)
    old = desk.waiting()
    second = desk.place(ORDER, LEARNERS)
    assert old is not None and not desk.take(old, tmp_path / "received.safetensors")
    desk.lay_answer(first, TRAINED, {})
    assert desk.answer(second) is None and desk.has_order()
    desk.withdraw(first)
    assert desk.has_order()
    desk.withdraw(second)
    assert not desk.has_order()


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"id": "a"},
        {"id": "a", "order": "not JSON"},
        {"id": "a", "order": "[]"},
        {"id": "a", "order": json.dumps({**ORDER.document(), "more": 1})},
        {"id": "a" * 200, "order": json.dumps(ORDER.document())},
        {"id": "a", "order": json.dumps({**ORDER.document(), "bundle": "x" * MOST_TEXT})},
    ],
)
def test_an_order_that_is_none_is_swept_away_and_declined(tmp_path: Path, metadata: dict[str, str]) -> None:
    desk = Desk(tmp_path)
    write_arrays(tmp_path / "order.safetensors", LEARNERS, metadata)
    assert desk.waiting() is None and not desk.has_order()
    assert desk.last_answer() == Answer.declined("order")


def test_a_link_or_a_directory_or_rubbish_is_no_order(tmp_path: Path) -> None:
    desk, order = Desk(tmp_path / "desk"), tmp_path / "desk" / "order.safetensors"
    desk.root.mkdir()
    secret = tmp_path / "secret.safetensors"
    write_arrays(secret, LEARNERS, {"id": "a", "order": json.dumps(ORDER.document())})
    order.symlink_to(secret)
    assert desk.waiting() is None and not order.is_symlink() and secret.is_file()
    order.write_bytes(b"rubbish")
    assert desk.waiting() is None and not order.exists()
    with pytest.raises(InputMissing):
        Desk(tmp_path / "nowhere").must_exist()


def test_an_answer_beyond_the_terms_is_refused(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    said = {"outcome": "trained", "reason": "", "figures": {"examples": 3.0, "text": 1.0}}
    write_arrays(tmp_path / "answer.safetensors", LEARNERS, {"id": "a", "answer": json.dumps(said)})
    with pytest.raises(Refused):
        desk.answer("a")
    (tmp_path / "answer.safetensors").write_bytes(b"half")
    assert desk.answer("a") is None
