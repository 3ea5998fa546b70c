"""Measures a model on labelled data, and predicts: any callable from batch to logits will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edge_far.device.metrics import Evaluation, Metrics
from edge_far.errors import DataError
from edge_far.texts.batches import Batch, collate, padded_length
from edge_far.texts.encode import Encoded

__all__ = [
    "TOKENS_PER_BATCH",
    "evaluate",
    "metrics_document",
    "metrics_text",
    "numbers_only",
    "predict_logits",
    "rows_by_length",
]

# Padded tokens of one batch: enough to keep a board's cores busy. A plan may allow fewer.
TOKENS_PER_BATCH = 512


def rows_by_length(lengths: np.ndarray, tokens: int = TOKENS_PER_BATCH) -> Iterator[np.ndarray]:
    """Yield index arrays of examples of similar length: at most `tokens` padded tokens each, or a single example."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * padded_length(int(lengths[order[stop]])) <= tokens:
            stop += 1
        yield order[start:stop]
        start = stop


def evaluate(
    logits: Callable[[Batch], np.ndarray],
    encoded: Encoded,
    classes: int,
    tokens: int = TOKENS_PER_BATCH,
    make_batch: Callable[[Encoded, np.ndarray], Batch] = collate,
) -> Metrics:
    """Return loss, accuracy, macro-F1 and Matthews correlation over all examples, `tokens` at a time."""
    evaluation = Evaluation(classes)
    for indices in rows_by_length(encoded.lengths, tokens):
        batch = make_batch(encoded, indices)
        evaluation.add(_checked(logits(batch), len(indices), classes), batch.labels)
    return evaluation.result()


def predict_logits(logits: Callable[[Batch], np.ndarray], encoded: Encoded, classes: int) -> np.ndarray:
    """Return float32 [examples, classes] in the order of the examples."""
    result = np.zeros((len(encoded), classes), np.float32)
    for indices in rows_by_length(encoded.lengths):
        result[indices] = _checked(numbers_only(logits)(collate(encoded, indices)), len(indices), classes)
    return result


def numbers_only(logits: Callable[[Batch], np.ndarray]) -> Callable[[Batch], np.ndarray]:
    """Return the same function, which raises DataError (65) where an answer is infinite or not a number."""

    def checked(batch: Batch) -> np.ndarray:
        found = logits(batch)
        if not np.isfinite(found).all():
            raise DataError("the model's answers are not numbers: its weights are damaged", hint="copy it again")
        return found

    return checked


def _checked(found: np.ndarray, rows: int, classes: int) -> np.ndarray:
    if found.shape != (rows, classes):
        answers = found.shape[-1] if found.ndim else 0
        raise DataError(f"the model gives {answers} answers a text and there are {classes} labels")
    return found


def metrics_document(metrics: Metrics) -> dict[str, Any]:
    """Return the headline figures of an evaluation."""
    return {
        "examples": metrics.examples,
        "loss": round(metrics.loss, 6),
        "accuracy": round(metrics.accuracy, 6),
        "macro_f1": round(metrics.macro_f1, 6),
        "matthews": round(metrics.matthews, 6),
    }


def metrics_text(metrics: Metrics) -> str:
    """Return the headline figures for people."""
    return (
        f"accuracy {metrics.accuracy:.2%}, macro-F1 {metrics.macro_f1:.3f}, "
        f"loss {metrics.loss:.4f} on {metrics.examples} examples"
    )
