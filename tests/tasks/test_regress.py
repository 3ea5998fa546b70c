"""Numbers: correlations against scipy and by hand, what is degenerate, the scale there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_far.bundles.manifest import Scale
from edge_far.errors import ConfigError, DataError
from edge_far.tasks.registry import task_of
from edge_far.tasks.regress import Regress, pearson, spearman

TASK = Regress(Scale(2.5, 1.5))


def drawn(seed: int, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.normal(size=count)
    return truth, 0.6 * truth + random.normal(size=count)


@pytest.mark.host
@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipy_s_also_with_ties(seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    truth, said = drawn(seed)
    if seed % 2:
        truth, said = truth.round(), said.round(1)
    assert pearson(truth, said) == pytest.approx(stats.pearsonr(truth, said).statistic, abs=1e-12)
    assert spearman(truth, said) == pytest.approx(stats.spearmanr(truth, said).statistic, abs=1e-12)


@pytest.mark.host
def test_the_error_is_scikit_learn_s() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, said = drawn(7)
    found = evaluated(truth, said)
    assert found["rmse"] == pytest.approx(1.5 * metrics.root_mean_squared_error(truth, said), rel=1e-6)
    variance = float(np.square(truth).mean())  # explained: of the training data's variance, which is 1 here
    credits = TASK.credits(truth.reshape(-1, 1).astype(np.float32), said.reshape(-1, 1).astype(np.float32))
    assert 1 - credits.mean() == pytest.approx((1 - metrics.r2_score(truth, said)) * truth.var(), rel=1e-5)
    assert variance > 0


def evaluated(truth: np.ndarray, said: np.ndarray, part: int = 7) -> dict[str, float]:
    evaluation = TASK.evaluation()
    for start in range(0, len(truth), part):
        rows = slice(start, start + part)
        evaluation.add(said[rows, None].astype(np.float32), truth[rows, None].astype(np.float32))
    result = evaluation.result()
    assert result.score == -result.loss and result.examples == len(truth)
    return {"loss": result.loss, **result.figures}


def test_by_hand() -> None:
    truth, said = np.array([0.0, 1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0, 5.0])
    found = evaluated(truth, said, part=3)
    assert found["loss"] == (1 + 0 + 0 + 4) / 4 and found["rmse"] == 1.5 * math.sqrt(5 / 4)
    assert found["pearson"] == pytest.approx(6.5 / math.sqrt(5 * 10.75))
    # Ranks 1, 2, 3, 4 and 1.5, 1.5, 3, 4.
    assert found["spearman"] == pytest.approx(4.5 / math.sqrt(5 * 4.5))


@pytest.mark.parametrize(
    ("truth", "said"),
    [([1.0], [2.0]), ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1]), ([0.3, 0.3, 0.3], [1.0, 2.0, 3.0]), ([0.1] * 9, [0.1] * 9)],
)
def test_one_example_or_constant_numbers_correlate_with_nothing(truth: list[float], said: list[float]) -> None:
    found = evaluated(np.array(truth), np.array(said))
    assert (found["pearson"], found["spearman"]) == (0.0, 0.0) and math.isfinite(found["rmse"])


def test_huge_and_tiny_numbers_correlate() -> None:
    truth, said = drawn(1)
    for factor in (1e-200, 1e200):
        assert pearson(truth * factor, said * factor) == pytest.approx(pearson(truth, said), abs=1e-12)


def test_weights_count_as_repetitions() -> None:
    truth, said = drawn(3, 40)
    counts = np.random.default_rng(0).integers(0, 4, 40)
    found = pearson(truth, said, counts.astype(np.float64))
    assert found == pytest.approx(pearson(np.repeat(truth, counts), np.repeat(said, counts)), abs=1e-12)


def test_unlabelled_examples_are_left_out() -> None:
    targets = TASK.targets(["4.0", None, "1.0"])
    assert targets.dtype == np.float32 and targets[0, 0] == 1.0 and targets[2, 0] == -1.0
    assert TASK.known(targets).tolist() == [True, False, True] and TASK.targets([]).shape == (0, 1)
    evaluation = TASK.evaluation()
    evaluation.add(np.zeros((3, 1), np.float32), targets)
    assert evaluation.result().examples == 2 and evaluation.result().loss == 1.0
    with pytest.raises(ValueError, match="no labelled example"):
        TASK.evaluation().result()


def test_answers_come_in_the_user_s_unit() -> None:
    answers = TASK.answers(np.array([[0.0], [1.0], [-1 / 3]], np.float32), top=1)
    assert answers == [{"value": 2.5}, {"value": 4.0}, {"value": 2.0}]
    assert TASK.answer_text(answers[1]).strip() == "4" and TASK.answer_text(TASK.no_answer(1)).strip() == "-"


def test_the_scale_is_that_of_the_training_data() -> None:
    task = Regress.of_labels(["1.0", "2.0", "6.0"], [])
    assert task.scale == Scale(3.0, pytest.approx(math.sqrt(14 / 3)))
    assert task_of("regress", (), task.scale).info == task.info
    with pytest.raises(DataError, match="the same number"):
        Regress.of_labels(["0.1"] * 3, [])
    with pytest.raises(ConfigError, match="labels to reserve"):
        Regress.of_labels(["1.0", "2.0"], ["a"])
    with pytest.raises(ValueError, match="scale"):
        task_of("regress", ())


def test_a_guess_loses_most_on_the_label_that_is_farthest_from_the_mean() -> None:
    assert TASK.chance(TASK.targets(["2.5", "3.0", None])) == 1.0
    assert TASK.chance(TASK.targets(["2.5", "-27.5", None])) == pytest.approx(400.0)


def test_small_units_are_not_rounded_away() -> None:
    evaluation = Regress(Scale(0.0, 1e-9)).evaluation()
    evaluation.add(np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32))
    assert evaluation.result().document()["rmse"] == 1e-9


def test_strata_are_tenths_of_the_ranking() -> None:
    targets = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    strata = TASK.strata(targets)
    assert np.bincount(strata).tolist() == [5] * 10
    assert max(targets[strata == 0, 0]) < min(targets[strata == 1, 0])
