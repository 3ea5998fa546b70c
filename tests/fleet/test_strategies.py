"""The server's strategies over Flower's classes, each against its definition in NumPy. Needs flwr (extra `fleet`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed here; 'make test' runs this in .venv-fleet")

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from edge_far.fleet.average import weighted_mean
from edge_far.fleet.exchange import Form, moved
from edge_far.fleet.server.plan import FleetPlan
from edge_far.fleet.server.server_app import _Fleet, _Tally
from edge_far.fleet.server.strategies import Aggregation, Contribution
from edge_far.fleet.terms import Order
from edge_far.fleet.traffic import packed
from tests.fleet.test_rounds import app_settings

pytestmark = pytest.mark.fleet

RANDOM = np.random.default_rng(5)
BEFORE = {"w": RANDOM.normal(size=(20, 3)).astype(np.float32), "b": RANDOM.normal(size=3).astype(np.float32)}
CHANGES = [{n: (RANDOM.normal(size=a.shape) * 1e-2).astype(np.float32) for n, a in BEFORE.items()} for _ in range(5)]
EXAMPLES = [10.0, 300.0, 7.0, 44.0, 91.0]
CONTRIBUTIONS = [
    Contribution(node, change, examples)
    for node, (change, examples) in enumerate(zip(CHANGES, EXAMPLES, strict=True), start=11)
]


@pytest.fixture(autouse=True)
def task() -> None:
    """Be what a process of Flower's is told that it is."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


def plan(**changes: Any) -> FleetPlan:
    return FleetPlan.of({**app_settings(), "bundle": "/b", "state": "/s", **changes})


@pytest.mark.parametrize("changes", [{}, {"strategy": "fedprox", "proximal-mu": 0.1}])
def test_the_mean_is_ours_bit_for_bit_in_whatever_order_the_answers_came(changes: dict[str, Any]) -> None:
    aside = weighted_mean(BEFORE, CHANGES, EXAMPLES)
    for order in (CONTRIBUTIONS, CONTRIBUTIONS[::-1]):
        found = Aggregation(plan(**changes)).mean(1, BEFORE, order)
        assert all(np.array_equal(found[name], aside[name]) and found[name].dtype == np.float32 for name in BEFORE)


def test_the_trimmed_mean_leaves_out_the_ends() -> None:
    liar = Contribution(99, {n: np.full(a.shape, 1e6, np.float32) for n, a in BEFORE.items()}, 1e6)
    found = Aggregation(plan(strategy="trimmed", trim=0.2)).mean(1, BEFORE, [*CONTRIBUTIONS, liar])
    for name in BEFORE:
        stack = np.sort(np.stack([moved(BEFORE, c.change)[name] for c in [*CONTRIBUTIONS, liar]]), axis=0)
        assert np.allclose(found[name], stack[1:-1].mean(axis=0), rtol=1e-6)


def test_fedadam_is_its_definition_and_goes_on_after_a_restart() -> None:
    rate, tau, first, second = 0.01, 1e-3, 0.9, 0.99
    through, halved = Aggregation(plan(strategy="fedadam")), Aggregation(plan(strategy="fedadam"))
    learners, m, v = BEFORE, dict.fromkeys(BEFORE, 0.0), dict.fromkeys(BEFORE, 0.0)
    for number in (1, 2, 3):
        contributions = [Contribution(n, change, 1.0) for n, change in enumerate(CHANGES)]
        found = through.mean(number, learners, contributions)
        again = halved.mean(number, learners, contributions)
        mean = weighted_mean(learners, CHANGES, [1.0] * len(CHANGES))
        for name in BEFORE:
            step = mean[name].astype(np.float64) - learners[name]
            m[name] = first * m[name] + (1 - first) * step
            v[name] = second * v[name] + (1 - second) * step**2
            scale = rate * np.sqrt(1 - second ** (number + 1)) / (1 - first ** (number + 1))
            expected = learners[name] + scale * m[name] / (np.sqrt(v[name]) + tau)
            assert np.allclose(found[name], expected, rtol=1e-5, atol=1e-8)
            assert np.allclose(again[name], found[name], rtol=1e-6, atol=1e-9)  # its moments were kept in float32
        kept = halved.kept()
        halved = Aggregation(plan(strategy="fedadam"))
        halved.restore(kept)
        learners = found


def test_with_noise_every_device_counts_alike_and_the_noise_is_as_large_as_it_says() -> None:
    shape = (200, 200)
    before, rest = {"w": np.full(shape, 0.5, np.float32)}, {"w": np.zeros(shape, np.float32)}
    still = [
        Contribution(node, {"w": np.zeros(shape, np.float32)}, examples) for node, examples in enumerate((1.0, 1e6))
    ]
    found = Aggregation(plan(**{"clip-norm": 2.0, "privacy-noise": 0.5})).mean(1, before, still)["w"]
    assert float(found.std()) == pytest.approx(0.5 * 2.0 / 2, rel=0.05)  # multiple x clip / devices
    far = [Contribution(0, rest, 1e6), Contribution(1, {"w": np.full(shape, 100.0, np.float32)}, 1.0)]
    tiny = Aggregation(plan(**{"clip-norm": 2.0, "privacy-noise": 1e-6})).mean(1, before, far)["w"]
    assert float(np.linalg.norm(tiny - 0.5)) == pytest.approx(2.0 / 2, rel=1e-2)  # clipped to 2, one of two


# --- what the server takes ------------------------------------------------------------------------------------------


def fleet() -> _Fleet:
    """Return a server that has everything but a network and a disk."""
    found = object.__new__(_Fleet)
    found._learners, found._form = BEFORE, Form.of(BEFORE)
    return found


def judged(arrays: dict[str, np.ndarray], said: dict[str, Any], figures: dict[str, Any], **order: Any) -> _Tally:
    asked = Message(RecordDict(), dst_node_id=7, message_type="train")
    content = {
        "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
        "said": ConfigRecord(said),
        "figures": MetricRecord(figures),
    }
    reply = Message(RecordDict(content), reply_to=asked)
    reply.metadata.__dict__["_src_node_id"] = 7
    order = {"kind": "train", "bundle": "0" * 64, "round": 1, **order}
    return fleet()._judged([7, 8], [reply], Order.of(order))


TRAINED = {"outcome": "trained", "reason": ""}


@pytest.mark.parametrize(
    ("word", "arrays", "said", "figures"),
    [
        ("numbers", {**CHANGES[0], "b": np.full(3, np.nan, np.float32)}, TRAINED, {"examples": 3.0}),
        ("norm", {**CHANGES[0], "b": np.full(3, 1e4, np.float32)}, TRAINED, {"examples": 3.0}),
        ("names", {"w": CHANGES[0]["w"]}, TRAINED, {"examples": 3.0}),
        ("shapes", {**CHANGES[0], "b": np.zeros(4, np.float32)}, TRAINED, {"examples": 3.0}),
        ("type", {**CHANGES[0], "b": np.zeros(3, np.float64)}, TRAINED, {"examples": 3.0}),
        ("order", CHANGES[0], TRAINED, {"examples": -3.0}),
        ("order", CHANGES[0], TRAINED, {"examples": float("inf")}),
        ("order", CHANGES[0], {"outcome": "trained", "reason": "hello"}, {"examples": 3.0}),
        ("order", CHANGES[0], {"outcome": "won"}, {"examples": 3.0}),
    ],
)
def test_a_node_that_lies_costs_the_round_nothing_but_its_part(
    word: str, arrays: dict[str, np.ndarray], said: dict[str, Any], figures: dict[str, Any]
) -> None:
    tally = judged(arrays, said, figures)
    assert tally.contributions == [] and tally.nodes["7"] == {"outcome": "refused", "reason": word}
    assert tally.nodes["8"]["outcome"] == "silent"


@pytest.mark.parametrize("traffic", ["float32", "int8"])
def test_a_good_answer_counts_with_its_examples(traffic: str) -> None:
    tally = judged(packed(CHANGES[0], traffic), TRAINED, {"examples": 3.0}, traffic=traffic)
    (found,) = tally.contributions
    assert found.examples == 3 and found.node == 7 and tally.bytes_down == 2 * 63 * 4
    assert tally.bytes_up == (63 * 4 if traffic == "float32" else 63 + 4)
    atol = 1e-9 if traffic == "float32" else 3e-4
    assert all(np.allclose(found.change[n], CHANGES[0][n], rtol=0, atol=atol) for n in BEFORE)
    declined = judged({}, {"outcome": "declined", "reason": "hours"}, {})
    assert declined.nodes["7"] == {"outcome": "declined", "reason": "hours"} and not declined.contributions
