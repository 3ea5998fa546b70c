"""Evaluation and prediction in batches of similar length, with a made-up model."""

from __future__ import annotations

import numpy as np
import pytest

from edge_far.device.evaluation import (
    TOKENS_PER_BATCH,
    evaluate,
    numbers_only,
    predict_logits,
    rows_by_length,
)
from edge_far.errors import DataError
from edge_far.tasks.classify import Classify
from edge_far.texts.batches import Batch, padded_length
from edge_far.texts.encode import Encoded

TASK = Classify(["a", "b", "c"])
LENGTHS = np.random.default_rng(0).integers(1, 65, 200)


def encoded() -> Encoded:
    """Return texts whose first token is their number, of label number % 3."""
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    tokens = np.zeros(starts[-1], np.int32)
    tokens[starts[:-1]] = np.arange(len(LENGTHS))
    return Encoded(tokens, starts, None, np.arange(len(LENGTHS)) % 3, 0, 0, 64)


def logits(batch: Batch) -> np.ndarray:
    """Recognise label 0 and 1; take 2 for 0."""
    return np.eye(3, dtype=np.float32)[batch.input_ids[:, 0] % 3 % 2] * 10


@pytest.mark.parametrize("tokens", [1, 64, 100, TOKENS_PER_BATCH, 10**6])
def test_every_example_once_and_no_batch_too_large(tokens: int) -> None:
    batches = list(rows_by_length(LENGTHS, tokens))
    assert sorted(np.concatenate(batches)) == list(range(len(LENGTHS)))
    for rows in batches:
        assert len(rows) * padded_length(int(LENGTHS[rows].max())) <= tokens or len(rows) == 1
    assert list(rows_by_length(np.array([], np.int64))) == []


@pytest.mark.parametrize("tokens", [1, 100, TOKENS_PER_BATCH])
def test_metrics_do_not_depend_on_the_batches(tokens: int) -> None:
    metrics = evaluate(logits, encoded(), TASK, tokens)
    assert metrics.examples == 200 and [c["support"] for c in metrics.details["classes"].values()] == [67, 67, 66]
    assert metrics.score == 134 / 200
    assert [c["predicted"] for c in metrics.details["classes"].values()] == [133, 67, 0]
    right = np.log(np.exp(10) + 2) - 10
    assert metrics.loss == pytest.approx((134 * right + 66 * (right + 10)) / 200, rel=1e-6)
    assert metrics.text().startswith("accuracy 67.00%, macro-F1 ") and "on 200 examples" in metrics.text()


def test_predictions_are_in_the_order_of_the_examples() -> None:
    found = predict_logits(logits, encoded(), TASK.info)
    np.testing.assert_array_equal(found.argmax(axis=1), np.arange(200) % 3 % 2)


def test_answers_that_do_not_fit_the_labels() -> None:
    with pytest.raises(DataError, match="gives 3 answers a text and there are 4 labels"):
        evaluate(logits, encoded(), Classify("abcd"))
    with pytest.raises(DataError, match="gives 3 answers a text and there are 4 labels"):
        predict_logits(logits, encoded(), Classify("abcd").info)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_numbers(value: float) -> None:
    def odd(batch: Batch) -> np.ndarray:
        return np.full((len(batch.input_ids), 3), value, np.float32)

    with pytest.raises(DataError, match="not numbers"):
        predict_logits(odd, encoded(), TASK.info)
    with pytest.raises(DataError, match="not numbers"):
        evaluate(numbers_only(odd), encoded(), TASK)
