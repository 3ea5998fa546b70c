"""The rule: score, paired error, and which rung is taken."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from edge_far.choice.held_out import folds, part_of
from edge_far.choice.rungs import Geometry, Rung, default_rungs, job_work, step_flops
from edge_far.choice.verdict import Answers as TaskAnswers
from edge_far.choice.verdict import cheapest_good, compare
from edge_far.tasks.classify import Classify

pytestmark = pytest.mark.host

TASK = Classify("abcd")
TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])


def Answers(truth: np.ndarray, said: np.ndarray) -> TaskAnswers:
    return TaskAnswers(TASK, truth, said)


def test_the_score_is_matthews_correlation() -> None:
    assert Answers(TRUTH, TRUTH).score == 1.0
    assert Answers(TRUTH, np.zeros(10, np.int64)).score == 0.0, "who always names one label knows nothing"
    said = np.array([0, 0, 0, 1, 1, 1, 1, 0, 2, -1])
    # By hand: 7 right of 10; supports 4, 4, 2; named 4, 4, 1 and one unanswered.
    expected = (7 * 10 - (4 * 4 + 4 * 4 + 2 * 1)) / ((100 - 36) * (100 - 34)) ** 0.5
    assert Answers(TRUTH, said).score == pytest.approx(expected, abs=1e-12)


def test_the_score_is_that_of_the_device_s_evaluation() -> None:
    random = np.random.default_rng(2)
    truth, logits = random.integers(4, size=300), random.normal(size=(300, 4)).astype(np.float32)
    evaluation = Classify("abcd").evaluation()
    evaluation.add(logits, truth)
    assert Answers(truth, logits.argmax(axis=1)).score == pytest.approx(
        evaluation.result().figures["matthews"], abs=1e-12
    )


def test_the_error_of_a_difference_is_paired() -> None:
    """Two rungs that are wrong on the same examples differ by nothing, however few they have right."""
    random = np.random.default_rng(0)
    truth = random.integers(4, size=400)
    said = np.where(random.random(400) < 0.6, truth, (truth + 1) % 4)
    same = compare(Answers(truth, said), Answers(truth, said))
    assert (same.below, same.error) == (0.0, 0.0)
    other = np.where(random.random(400) < 0.6, truth, (truth + 1) % 4)
    assert compare(Answers(truth, other), Answers(truth, said)).error > 0.03


def test_the_cheapest_that_is_not_measurably_worse_is_taken() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(4, size=1000)
    best = np.where(random.random(1000) < 0.95, truth, (truth + 1) % 4)
    near, far = best.copy(), best.copy()
    wrong = np.flatnonzero(best != truth)[:20]
    near[wrong], near[np.flatnonzero(best == truth)[:22]] = truth[wrong], -1  # twenty gained, twenty-two lost
    far[:200] = (truth[:200] + 2) % 4
    answers = [Answers(truth, one) for one in (far, near, best)]
    chosen, number, compared = cheapest_good(answers, [0.1, 0.2, 1.0])
    assert (chosen, number) == (1, 2) and not compared[0].good and compared[1].below > 0


def test_held_out_parts_keep_every_label_and_share_nothing() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    parts = folds(labels, seed=0)
    assert len(parts) == 5 and sum(len(part.held_out) for part in parts) == 100
    for part in parts:
        assert not np.intersect1d(part.train, part.held_out).size and set(labels[part.train]) == {0, 1, 2}
    few = part_of(parts[0].train, labels, 20, seed=0)
    assert set(labels[few]) == {0, 1, 2} and len(few) == pytest.approx(20, abs=2)


def test_work_grows_from_rung_to_rung_and_full_is_one() -> None:
    shape = Geometry(blocks=6, width=384, ffn=1536, labels=7, tokens=12.0)
    rungs = default_rungs(6, 0.1)
    assert [rung.name for rung in rungs] == ["head", "top-1", "top-2", "top-3", "far"]
    work = [job_work(rung, shape, "mean", 4, 4) for rung in rungs]
    assert work == sorted(work) and job_work(Rung("full"), shape, "mean", 4, 4) == pytest.approx(1.0)
    # The prefix' one pass is a third of a full step: over four epochs the head is a twelfth.
    assert work[0] == pytest.approx(1 / 12, rel=0.01)
    heads = rungs[2].by_heads(1 / 12)
    assert step_flops(heads, shape, "mean") < step_flops(rungs[2], shape, "mean")
    assert step_flops(rungs[1], shape, "cls") < step_flops(rungs[1], shape, "mean")
