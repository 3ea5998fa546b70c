"""Metrics against naive loops over examples and against values computed by hand."""

import math

import numpy as np
import pytest

from edge_far.tasks.classify import Classify, ClassifyEvaluation, cross_entropy
from edge_far.tasks.interface import Metrics


def Evaluation(classes: int) -> ClassifyEvaluation:
    return ClassifyEvaluation([str(label) for label in range(classes)])


def counts(result: Metrics, kind: str) -> tuple[int, ...]:
    return tuple(label[kind] for label in result.details["classes"].values())


def one_hot(predictions: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predictions]


def naive(labels: list[int], predictions: list[int], classes: int) -> tuple[float, float, float]:
    """Accuracy, macro-F1 by precision and recall, Matthews as the correlation of one-hot columns."""
    pairs = list(zip(labels, predictions, strict=True))
    accuracy = sum(a == b for a, b in pairs) / len(pairs)
    scores = []
    for c in range(classes):
        hit = sum(a == c and b == c for a, b in pairs)
        said, true = predictions.count(c), labels.count(c)
        if said or true:
            precision = hit / said if said else 0.0
            recall = hit / true if true else 0.0
            scores.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    covariances = {"xy": 0.0, "xx": 0.0, "yy": 0.0}
    for c in range(classes):
        mean_x, mean_y = labels.count(c) / len(pairs), predictions.count(c) / len(pairs)
        for a, b in pairs:
            x, y = (a == c) - mean_x, (b == c) - mean_y
            covariances["xy"] += x * y
            covariances["xx"] += x * x
            covariances["yy"] += y * y
    spread = math.sqrt(covariances["xx"] * covariances["yy"])
    return accuracy, sum(scores) / len(scores), covariances["xy"] / spread if spread > 1e-12 else 0.0


@pytest.mark.parametrize("classes", [2, 3, 20])
def test_equals_naive_loops(classes: int) -> None:
    random = np.random.default_rng(classes)
    for trial in range(10):
        labels = random.integers(0, max(2, classes - 2), 50).tolist()  # some classes never occur
        guesses = random.integers(0, classes, 50).tolist()
        predictions = [label if random.random() < 0.6 else guess for label, guess in zip(labels, guesses, strict=True)]
        evaluation = Evaluation(classes)
        for start in range(0, 50, 7):
            part = slice(start, start + 7)
            evaluation.add(one_hot(predictions[part], classes), np.array(labels[part]))
        result = evaluation.result()
        assert (result.figures["accuracy"], result.figures["macro_f1"], result.figures["matthews"]) == pytest.approx(
            naive(labels, predictions, classes), abs=1e-12
        ), trial
        assert counts(result, "support") == tuple(labels.count(c) for c in range(classes))
        assert counts(result, "predicted") == tuple(predictions.count(c) for c in range(classes))
        assert result.examples == 50 == sum(counts(result, "support"))


def test_by_hand() -> None:
    evaluation = Evaluation(2)
    evaluation.add(one_hot([1, 1, 1, 0, 0, 0, 1, 1], 2), np.array([1, 1, 1, 1, 0, 0, 0, -1]))
    result = evaluation.result()  # true positives 3, false negatives 1, true negatives 2, false positives 1
    assert result.figures["accuracy"] == result.score == 5 / 7
    assert result.figures["matthews"] == pytest.approx((3 * 2 - 1 * 1) / math.sqrt(4 * 4 * 3 * 3))
    assert result.figures["macro_f1"] == pytest.approx((6 / 8 + 4 / 6) / 2)
    assert [counts(result, kind) for kind in ("support", "predicted", "correct")] == [(3, 4), (3, 4), (2, 3)]


def test_matthews_is_zero_where_it_is_not_defined() -> None:
    evaluation = Evaluation(3)
    evaluation.add(one_hot([1, 1], 3), np.array([1, 1]))
    assert (evaluation.result().figures["matthews"], evaluation.result().score) == (0.0, 1.0)


def test_matthews_of_many_examples_does_not_overflow() -> None:
    evaluation = Evaluation(2)
    evaluation.confusion[:] = [[10**9, 0], [0, 10**9]]
    assert evaluation.result().figures["matthews"] == 1.0


def test_loss() -> None:
    logits = np.array([[1.0, 2.0, 0.5], [1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0]], np.float32)
    labels = np.array([1, 0, 2])
    first = -math.log(math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(0.5)))
    assert cross_entropy(logits, labels) == pytest.approx([first, 0.0, math.log(3)])
    evaluation = Evaluation(3)
    evaluation.add(logits[:2], labels[:2])
    evaluation.add(logits[2:], labels[2:])
    assert evaluation.result().loss == pytest.approx((first + math.log(3)) / 3)


def test_nothing_to_evaluate() -> None:
    evaluation = Evaluation(2)
    evaluation.add(one_hot([1], 2), np.array([-1]))
    with pytest.raises(ValueError, match="no labelled example"):
        evaluation.result()


def test_a_free_place_is_never_said() -> None:
    task = Classify(["off", "reserved-0", "on"])
    logits = np.array([[1.0, 9.0, 0.0], [0.0, 9.0, 2.0]], np.float32)
    assert task.said(logits).tolist() == [0, 2] and logits[0, 1] == 9
    first = task.answers(logits, 3)[0]
    assert [each["label"] for each in first["top"]] == ["off", "on"]
    assert first["probability"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-6)
    evaluation = task.evaluation()
    evaluation.add(logits, np.array([0, 2]))
    assert evaluation.result().figures["accuracy"] == 1.0
    assert task.form.unknown("reserved-0") is not None
