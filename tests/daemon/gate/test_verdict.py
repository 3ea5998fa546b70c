"""The gate: what passes, what is refused and why; no file, no model, only arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edge_far.daemon.gate.verdict import Answers as TaskAnswers
from edge_far.daemon.gate.verdict import Decision, GateSettings, decide
from edge_far.errors import DataError
from edge_far.tasks.classify import Classify

TASK = Classify("abcde")


def Answers(labels: np.ndarray, candidate: np.ndarray, reference: np.ndarray) -> TaskAnswers:
    """Of models that are sure of these classes; or of logits."""
    logits = [np.eye(5, dtype=np.float32)[each] if each.ndim == 1 else each for each in (candidate, reference)]
    return TaskAnswers(TASK, labels, *logits)


def answers(n: int, gains: int, losses: int, both_wrong: int = 0, classes: int = 5) -> TaskAnswers:
    """Classes with so many gains and losses; the rest is right in both, but for `both_wrong`."""
    labels = np.arange(n) % classes
    wrong = (labels + 1) % classes
    candidate, reference = labels.copy(), labels.copy()
    reference[:gains] = wrong[:gains]
    candidate[gains : gains + losses] = wrong[gains : gains + losses]
    candidate[n - both_wrong :] = wrong[n - both_wrong :]
    reference[n - both_wrong :] = wrong[n - both_wrong :]
    return Answers(labels, candidate, reference)


def reason(decision: Decision) -> str:
    assert not decision.accepted and len(decision.reasons) == 1
    return decision.reasons[0]


def test_better_candidate_passes() -> None:
    decision = decide(answers(200, 12, 3, both_wrong=10), answers(200, 1, 2))
    assert decision.accepted and decision.device is not None and decision.base is not None
    device = decision.device
    assert (device.examples, device.gains, device.losses) == (200, 12, 3)
    assert device.difference == pytest.approx(device.candidate["accuracy"] - device.reference["accuracy"])
    assert device.candidate["accuracy"] == pytest.approx(187 / 200)
    assert -0.05 < device.lower_bound < device.difference == pytest.approx(0.045)
    assert 0 < device.detectable_loss < 0.1 and 0.5 < device.accepted_if_equal < 1
    assert "accuracy 93.50%, was 89.00%" in decision.reasons[0]


def test_macro_f1_is_that_of_the_definition() -> None:
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    candidate = labels.copy()
    candidate[:6], candidate[60:63] = 1, 0
    device = decide(Answers(labels, candidate, labels), settings=GateSettings(tolerance=0.3)).device
    assert device is not None and device.reference["macro_f1"] == 1.0
    f1_of_0, f1_of_1 = 2 * 54 / (60 + 57), 2 * 27 / (30 + 33)
    assert device.candidate["macro_f1"] == pytest.approx((f1_of_0 + f1_of_1 + 1) / 3)


def test_equal_candidate_passes() -> None:
    assert decide(answers(60, 0, 0)).accepted and decide(answers(300, 5, 5)).accepted


def test_lower_point_estimate_is_refused() -> None:
    assert "is below the current release's" in reason(decide(answers(1000, 4, 5)))


def test_wide_interval_is_refused() -> None:
    assert "may be as low as" in reason(decide(answers(100, 12, 12)))
    assert decide(answers(1000, 120, 120)).accepted


def test_base_must_be_non_inferior_but_not_better() -> None:
    device = answers(200, 12, 3)
    assert decide(device, answers(400, 0, 5)).accepted
    assert reason(decide(device, answers(400, 0, 15))).startswith("base: the true difference")


def test_missing_base_is_said_or_refused() -> None:
    decision = decide(answers(200, 3, 0))
    assert decision.accepted and "forgetting would go unseen" in decision.reasons[1]
    assert "asks for one" in reason(decide(answers(200, 3, 0), settings=GateSettings(base_required=True)))


def test_too_few_examples_are_refused_with_the_number_needed() -> None:
    assert "58 held-out examples are too few; from 59 on" in reason(decide(answers(58, 9, 0)))
    assert "from 149 on" in reason(decide(answers(60, 9, 0), settings=GateSettings(tolerance=0.02)))
    decision = decide(answers(0, 0, 0))
    assert not decision.accepted and decision.device is None
    unlabelled = answers(100, 9, 0)
    unlabelled.targets[:60] = -1
    assert "40 held-out examples" in reason(decide(unlabelled))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(value: float) -> None:
    labels = np.arange(100) % 4
    logits = np.eye(5, dtype=np.float32)[labels]
    broken = logits.copy()
    broken[70, 2] = value
    assert "NaN or infinity" in reason(decide(Answers(labels, broken, logits)))
    assert decide(Answers(labels, logits, logits)).accepted


def test_collapse_to_one_class_is_refused() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    same = Answers(labels, np.zeros(100, int), np.zeros(100, int))
    assert "the same answer" in reason(decide(same))
    only = Answers(np.zeros(100, int), np.zeros(100, int), np.zeros(100, int))
    assert decide(only).accepted


def test_arrays_that_do_not_belong_together() -> None:
    good = answers(100, 3, 0)
    with pytest.raises(DataError, match="same examples"):
        decide(Answers(good.targets, good.candidate[:-1], good.reference))
    with pytest.raises(DataError, match="logits"):
        decide(Answers(good.targets, np.zeros((100, 0)), good.reference))


def test_document_is_json() -> None:
    document = json.loads(json.dumps(decide(answers(200, 12, 3)).as_document(), allow_nan=False))
    assert document["accepted"] is True and document["device"]["gains"] == 12 and document["base"] is None
