"""What leaves a device, byte for byte: the ClientApp's reply as Flower serialises it. Needs flwr (extra `fleet`)."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed here; 'make test' runs this in .venv-fleet")

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.task_identity import TaskIdentity

from edge_far.bundles.arrays import write_arrays
from edge_far.fleet.board import client_app
from edge_far.fleet.desk import Desk
from edge_far.fleet.terms import FIGURES, REASONS, Answer, Order

pytestmark = pytest.mark.fleet

SECRET = "unlock the back door at nine"
LEARNERS = {"head": np.zeros((3, 4), np.float32), "bias": np.zeros(3, np.float32)}
FIGURES_TOLD = {"examples": 120.0, "held_out_examples": 30.0, "held_out_score": 0.5, "seconds": 2.0}


@pytest.fixture(autouse=True)
def task() -> None:
    """Be what a process of Flower's is told that it is."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


@pytest.fixture
def node(tmp_path: Path) -> Context:
    """Return a SuperNode's context: a bundle's two files that the ClientApp reads, a desk, a directory to keep."""
    for name in ("bundle", "desk", "keep"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundle" / "manifest.json").write_text("{}")
    write_arrays(tmp_path / "bundle" / "learners.safetensors", LEARNERS)
    settings = {name: str(tmp_path / name) for name in ("bundle", "desk", "keep")}
    return Context(run_id=1, node_id=7, node_config=settings, state=RecordDict(), run_config={})


def order(node: Context, **changes: object) -> Message:
    manifest = Path(str(node.node_config["bundle"])) / "manifest.json"
    asked = {"kind": "train", "bundle": hashlib.sha256(manifest.read_bytes()).hexdigest(), "round": 1, "wait_s": 20.0}
    document = Order.of({**asked, **changes}).document()
    del document["kind"]
    arrays = ArrayRecord({name: Array(array) for name, array in LEARNERS.items()})
    return Message(
        RecordDict({"arrays": arrays, "config": ConfigRecord(document)}), dst_node_id=7, message_type="train"
    )


def work(node: Context, answer: Answer, change: float) -> threading.Thread:
    """Answer the next order as a worker would, from another thread."""
    desk = Desk(Path(str(node.node_config["desk"])))

    def serve() -> None:
        ends = time.monotonic() + 10
        while (ticket := desk.waiting()) is None:
            if time.monotonic() > ends:
                return
            time.sleep(0.02)
        desk.lay_answer(ticket.id, answer, {name: array + np.float32(change) for name, array in LEARNERS.items()})

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def replied(node: Context, message: Message) -> Message:
    return client_app.train(message, node)


def other_words_in(raw: bytes) -> list[bytes]:
    """Return every run of four or more letters in what would be sent, but for the words that are allowed."""
    for word in sorted(ALLOWED, key=len, reverse=True):
        raw = raw.replace(word.encode(), b"\0")
    return re.findall(rb"[A-Za-z]{4,}", raw)


ALLOWED = {
    *REASONS, *FIGURES, *LEARNERS, "arrays", "figures", "said", "outcome", "reason", "trained", "declined",
    "values", "scales", "train", "numpy.ndarray", "float32", "int8", "NUMPY", "descr", "fortran_order", "shape",
    "False", "True",
}  # fmt: skip


@pytest.mark.parametrize("traffic", ["float32", "int8"])
def test_nothing_but_arrays_numbers_and_words_of_the_terms_leaves(node: Context, traffic: str) -> None:
    (Path(str(node.node_config["desk"])) / "note.txt").write_text(SECRET)
    thread = work(node, Answer("trained", "", FIGURES_TOLD), 0.25)
    asked = order(node, traffic=traffic)
    reply = replied(node, asked)
    thread.join()
    assert set(reply.content) == {"arrays", "figures", "said"}
    assert dict(reply.content["said"]) == {"outcome": "trained", "reason": ""}
    assert set(reply.content["figures"]) <= set(FIGURES)
    raw = message_to_proto(reply).SerializeToString()
    assert other_words_in(raw) == []
    assert other_words_in(raw + SECRET.encode())  # it would see one
    assert not [word for word in SECRET.split() if len(word) > 3 and word.encode() in raw]


def test_a_sentence_of_the_worker_does_not_pass(node: Context) -> None:
    thread = work(node, Answer("declined", SECRET, {}), 0.0)  # a worker that has gone wrong
    reply = replied(node, order(node))
    thread.join()
    assert dict(reply.content["said"]) == {"outcome": "declined", "reason": "order"}
    assert SECRET.encode() not in message_to_proto(reply).SerializeToString()


@pytest.mark.parametrize(
    ("word", "change", "changes"),
    [("bundle", 0.25, {"bundle": "0" * 64}), ("norm", 1e5, {}), ("numbers", np.nan, {})],
)
def test_the_device_refuses_what_must_not_be_sent(
    node: Context, word: str, change: float, changes: dict[str, object]
) -> None:
    thread = work(node, Answer("trained", "", FIGURES_TOLD), change) if word != "bundle" else None
    reply = replied(node, order(node, **changes))
    if thread:
        thread.join()
    assert reply.content["said"]["reason"] == word and not reply.content["arrays"]


def test_a_change_is_clipped_before_it_leaves(node: Context) -> None:
    thread = work(node, Answer("trained", "", FIGURES_TOLD), 10.0)
    reply = replied(node, order(node, clip_norm=1.0))
    thread.join()
    vector = np.concatenate([a.numpy().reshape(-1) for a in reply.content["arrays"].values()])
    assert 0.999 < np.linalg.norm(vector.astype(np.float64)) <= 1.0
    assert reply.content["figures"]["clipped"] == 1.0


def test_nobody_at_the_desk_is_told_in_a_word(node: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_app, "TAKEN_S", 0.1)
    reply = replied(node, order(node))
    assert dict(reply.content["said"]) == {"outcome": "declined", "reason": "away"}
    assert not Desk(Path(str(node.node_config["desk"]))).has_order()


def test_an_unforeseen_failure_is_told_in_a_word_too(node: Context) -> None:
    (Path(str(node.node_config["bundle"])) / "learners.safetensors").unlink()
    broken = Message(RecordDict(), dst_node_id=7, message_type="train")  # has no record that is asked for
    for message in (order(node), broken):
        reply = replied(node, message)
        assert not reply.has_error() and dict(reply.content["said"]) == {"outcome": "declined", "reason": "failed"}
        assert b"learners" not in message_to_proto(reply).SerializeToString()
