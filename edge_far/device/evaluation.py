"""Measures a model on labelled data, and predicts: any callable from batch to logits will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edge_far.bundles.manifest import TaskInfo
from edge_far.errors import DataError
from edge_far.tasks.interface import Metrics, Task
from edge_far.texts.batches import Batch, collate, padded_length
from edge_far.texts.encode import Encoded

__all__ = [
    "TOKENS_PER_BATCH",
    "evaluate",
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
    task: Task,
    tokens: int = TOKENS_PER_BATCH,
    make_batch: Callable[[Encoded, np.ndarray], Batch] = collate,
    *,
    fit: bool = False,
) -> Metrics:
    """Return the task's loss and figures over all examples, `tokens` at a time; with `fit` at its best settings."""
    evaluation = task.evaluation(encoded)
    for indices in rows_by_length(encoded.lengths, tokens):
        batch = make_batch(encoded, indices)
        evaluation.add(_checked(logits(batch), batch, task.info), batch.labels, indices)
    return evaluation.result(fit=fit)


def predict_logits(logits: Callable[[Batch], np.ndarray], encoded: Encoded, task: TaskInfo) -> np.ndarray:
    """Return float32 [examples, outputs] in the order of the examples; [examples, tokens, outputs] of a task of tokens.

    There are as many tokens as the longest example is padded to; behind the others' last are zeros.
    """
    result = np.zeros(task.logits_shape(len(encoded), encoded.padded_length), np.float32)
    for indices in rows_by_length(encoded.lengths):
        batch = collate(encoded, indices)
        found = _checked(numbers_only(logits)(batch), batch, task)
        if task.of_tokens:
            result[indices, : found.shape[1]] = found
        else:
            result[indices] = found
    return result


def numbers_only(logits: Callable[[Batch], np.ndarray]) -> Callable[[Batch], np.ndarray]:
    """Return the same function, which raises DataError (65) where an answer is infinite or not a number."""

    def checked(batch: Batch) -> np.ndarray:
        found = logits(batch)
        if not np.isfinite(found).all():
            raise DataError("the model's answers are not numbers: its weights are damaged", hint="copy it again")
        return found

    return checked


def _checked(found: np.ndarray, batch: Batch, task: TaskInfo) -> np.ndarray:
    if found.shape != task.logits_shape(*batch.input_ids.shape):
        answers = found.shape[-1] if found.ndim else 0
        each = "token" if task.of_tokens else "text"
        raise DataError(f"the model gives {answers} answers a {each} and there are {task.outputs} labels")
    return found
