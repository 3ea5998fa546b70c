"""Lists of labels: F1 and the fitted threshold against scikit-learn and by hand, what is degenerate, what is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_far.errors import ConfigError, DataError
from edge_far.tasks.multilabel import Multilabel, best_threshold

TASK = Multilabel(["bath", "hall", "roof"])


def drawn(seed: int, count: int = 60, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and logits; in every third case a label never occurs."""
    random = np.random.default_rng(seed)
    truth = random.random((count, labels)) < 0.3
    logits = (truth * 2.0 - 1.2 + random.normal(size=truth.shape)).astype(np.float32)
    if seed % 3 == 0:
        truth[:, 0] = False
        logits[:, 0] = -5
    return truth.astype(np.float32), logits


def odds(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


@pytest.mark.host
@pytest.mark.parametrize("seed", range(6))
def test_f1_is_scikit_learn_s(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    truth, logits = drawn(seed)
    evaluation = TASK.evaluation()
    for start in range(0, len(truth), 7):
        evaluation.add(logits[start : start + 7], truth[start : start + 7])
    result, said = evaluation.result(), odds(logits) >= 0.5
    for name, average in (("micro_f1", "micro"), ("macro_f1", "macro")):
        expected = metrics.f1_score(truth, said, average=average, zero_division=np.nan)
        assert result.figures[name] == pytest.approx(expected, abs=1e-12)
        assert TASK.score_figures(truth, TASK.said(logits))[name] == pytest.approx(expected, abs=1e-12)
    assert result.loss == pytest.approx(metrics.log_loss(truth.ravel(), odds(logits).ravel()), rel=1e-6)
    credits = metrics.f1_score(truth, said, average="samples", zero_division=1.0)
    assert TASK.credits(truth, logits).mean() == pytest.approx(credits, abs=1e-12)
    counts = np.random.default_rng(seed).integers(0, 3, len(truth))
    repeated = metrics.f1_score(np.repeat(truth, counts, 0), np.repeat(said, counts, 0), average="micro")
    assert TASK.score(truth, said, counts.astype(float)) == pytest.approx(repeated, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_threshold_is_better_than_the_fitted_one(seed: int) -> None:
    truth, logits = drawn(seed)
    logits = logits.round(1)  # equal probabilities are said together
    evaluation = TASK.evaluation()
    evaluation.add(logits, truth)
    fitted = evaluation.result(fit=True)
    threshold = fitted.settings["threshold"]
    scores = [TASK.score(truth, odds(logits) >= value) for value in np.unique(odds(logits))]
    assert fitted.score == pytest.approx(max(scores), abs=1e-12)
    assert fitted.document()["threshold"] == threshold and TASK.fitted(fitted.document()).threshold == threshold
    assert TASK.fitted({}).threshold == 0.5


def test_thresholds_at_the_edges() -> None:
    assert best_threshold(np.zeros((4, 2), bool), np.full((4, 2), 0.3)) == 0.5
    assert best_threshold(np.ones((4, 2), bool), np.full((4, 2), 0.3)) == 0.15
    assert best_threshold(np.array([[True, False]]), np.array([[0.9, 0.5]])) == 0.7


@pytest.mark.parametrize(("truth", "said", "credit", "micro"), [(0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1)])
def test_degenerate_answers(truth: int, said: int, credit: float, micro: float) -> None:
    targets, logits = np.full((1, 3), truth, np.float32), np.full((1, 3), 9.0 if said else -9.0, np.float32)
    evaluation = TASK.evaluation()
    evaluation.add(logits, targets)
    result = evaluation.result()
    assert TASK.credits(targets, logits).tolist() == [credit]
    assert (result.figures["micro_f1"], result.figures["macro_f1"]) == (micro, micro)


def test_targets() -> None:
    targets = TASK.targets(['["hall"]', "[]", None, '["bath", "roof"]'])
    assert targets.dtype == np.float32 and targets[[0, 1, 3]].tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert TASK.known(targets).tolist() == [True, True, False, True] and TASK.targets([]).shape == (0, 3)
    with pytest.raises(DataError, match="unknown label 'attic'"):
        TASK.targets(['["attic"]'])
    evaluation = TASK.evaluation()
    evaluation.add(np.zeros((4, 3), np.float32), targets)
    assert evaluation.result().examples == 3 and evaluation.result().loss == pytest.approx(math.log(2))
    assert evaluation.result().details["classes"]["hall"] == {"support": 1, "predicted": 3, "correct": 1}
    with pytest.raises(ValueError, match="no labelled example"):
        TASK.evaluation().result()


def test_the_labels_are_all_that_occur() -> None:
    assert Multilabel.of_labels(['["10", "2"]', "[]", '["2"]'], []).labels == ("2", "10")
    with pytest.raises(ConfigError, match="no places for others"):
        Multilabel.of_labels(['["2"]'], ["reserved-0"])
    with pytest.raises(DataError, match="no example of the training data has a label"):
        Multilabel.of_labels(["[]", "[]"], [])


def test_strata_are_the_rarest_labels() -> None:
    targets = TASK.targets(['["bath"]', '["bath", "hall"]', "[]", '["bath", "hall", "roof"]'])
    assert TASK.strata(targets).tolist() == [0, 1, 3, 2]


def test_what_is_told() -> None:
    logits = np.array([[-1.0, 3.0, 1.0], [-9.0, -9.0, -8.0]], np.float32)
    first, second = TASK.answers(logits, top=1)
    assert first == {"labels": ["hall", "roof"], "probabilities": [0.952574, 0.731059]}
    assert second == {"labels": [], "probabilities": []}
    (ranked,) = TASK.answers(logits[1:], top=2)
    assert [entry["label"] for entry in ranked["top"]] == ["roof", "bath"]
    strict = TASK.fitted({"threshold": 0.9})
    assert strict.answers(logits, top=1)[0]["labels"] == ["hall"]
    told = [TASK.answer_text(answer).strip() for answer in (first, second, TASK.no_answer(1))]
    assert told == ["hall, roof", "(none)", "-"]
