"""What travels, and what each side refuses of it: by hand-made arrays, one wrong thing at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_far.fleet.average import weighted_mean
from edge_far.fleet.exchange import Form, change_between, check_norm, clipped, norm_of
from edge_far.fleet.terms import FIGURES, REASONS, Answer, Order, Refused

GOOD = {"head": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(4, np.float32)}
FORM = Form.of(GOOD)


@pytest.mark.parametrize(
    ("word", "arrays"),
    [
        ("names", {"head": GOOD["head"]}),
        ("names", {**GOOD, "extra": GOOD["bias"]}),
        ("type", {**GOOD, "bias": GOOD["bias"].astype(np.float64)}),
        ("shapes", {**GOOD, "bias": np.ones((4, 1), np.float32)}),
        ("shapes", {**GOOD, "bias": np.ones((), np.float32)}),
        ("numbers", {**GOOD, "bias": np.array([1, 2, np.nan, 4], np.float32)}),
        ("numbers", {**GOOD, "bias": np.array([1, 2, -np.inf, 4], np.float32)}),
    ],
)
def test_each_wrong_thing_has_its_word(word: str, arrays: dict[str, np.ndarray]) -> None:
    FORM.check(GOOD, "a test")
    with pytest.raises(Refused) as refused:
        FORM.check(arrays, "node 7")
    assert refused.value.word == word and "node 7" in str(refused.value)


def test_the_norm_is_that_of_one_long_vector() -> None:
    vector = np.concatenate([array.reshape(-1) for array in GOOD.values()]).astype(np.float64)
    assert norm_of(GOOD) == pytest.approx(float(np.linalg.norm(vector)), rel=1e-15)
    assert check_norm(GOOD, 10.0, "x") == norm_of(GOOD)
    huge = {**GOOD, "bias": np.full(4, 3e38, np.float32)}  # whose squares are beyond float32
    for change in (huge, {**GOOD, "bias": np.full(4, np.nan, np.float32)}):
        with pytest.raises(Refused, match="larger than the bound"):
            check_norm(change, 1e6, "x")


def test_clipping_keeps_the_direction_and_the_bound() -> None:
    cut, made_smaller = clipped(GOOD, 2.0)
    assert made_smaller and 1.999 < norm_of(cut) <= 2.0
    assert np.allclose(cut["head"] * (norm_of(GOOD) / 2), GOOD["head"], rtol=1e-5)
    for most in (0.0, 100.0):
        same, made_smaller = clipped(GOOD, most)
        assert not made_smaller and all(np.array_equal(same[name], GOOD[name]) for name in GOOD)


def test_the_mean_is_that_of_float64_rounded_once_bit_for_bit() -> None:
    random = np.random.default_rng(1)
    before = {"w": random.normal(size=(50, 7)).astype(np.float32)}
    learners = [{"w": (before["w"] + random.normal(size=(50, 7)) * 1e-2).astype(np.float32)} for _ in range(5)]
    weights = [311.0, 7.0, 1290.0, 2.0, 45.0]
    changes = [change_between(before, one) for one in learners]
    found = weighted_mean(before, changes, weights)
    aside = np.zeros((50, 7), np.float64)
    for one, weight in zip(learners, weights, strict=True):
        aside += weight * (one["w"] - before["w"]).astype(np.float64)
    aside = before["w"].astype(np.float64) + aside / math.fsum(weights)
    assert found["w"].dtype == np.float32
    assert np.array_equal(found["w"], aside.astype(np.float32))
    # Against an oracle of more digits: nothing but the one rounding to float32.
    exact = sum(np.longdouble(w) * one["w"] for one, w in zip(learners, weights, strict=True)) / np.longdouble(1655)
    assert np.abs(found["w"] - exact).max() <= np.abs(exact).max() * 2.0**-23
    for bad in ([], [1.0, 0.0, 1.0, 1.0, 1.0]):
        with pytest.raises(ValueError, match="positive weight"):
            weighted_mean(before, changes if bad else [], bad)


def test_an_order_is_of_the_terms_or_refused() -> None:
    good = {"kind": "train", "bundle": "0" * 64, "round": 3}
    order = Order.of(good)
    assert Order.of(order.document()) == order
    for wrong in ({"kind": "erase"}, {"bundle": "short"}, {"epochs": 0}, {"most_norm": math.nan}, {"run": "rm -rf"}):
        with pytest.raises(Refused) as refused:
            Order.of({**good, **wrong})
        assert refused.value.word == "order"


def test_an_answer_says_no_sentence() -> None:
    trained = {"outcome": "trained", "reason": "", "figures": {"examples": 12.0, "norm": 0.5}}
    assert Answer.of(trained).figures["examples"] == 12
    for word in REASONS:
        assert Answer.of({"outcome": "declined", "reason": word, "figures": {}}) == Answer.declined(word)
    for wrong in (
        {"outcome": "declined", "reason": "turn the light on in the kitchen"},
        {"reason": "hours"},
        {"outcome": "declined"},
        {"outcome": "trained", "figures": {}},
        {"figures": {"examples": 0.5}},
        {"figures": {"examples": 1e300}},
        {"figures": {"examples": 3.0, "label-1": 1.0}},
        {"figures": {"examples": 3.0, "norm": "turn the light on"}},
    ):
        with pytest.raises(Refused):
            Answer.of({**trained, **wrong})
    assert "label" not in " ".join(FIGURES)
