"""What fewer bits cost: a release's size, time and figures on labelled data, beside the same model in float32."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.device.evaluation import evaluate, numbers_only
from edge_far.device.file_model import FileModel
from edge_far.device.release_files import MODEL_FILE, WEIGHTS_FILE
from edge_far.tasks.figures import figures_of
from edge_far.tasks.interface import Task
from edge_far.texts.batches import Batch, collate
from edge_far.texts.encode import Encoded

__all__ = ["measure_release", "measured_logits"]

TIMED_TEXTS = 50
WARM_UP_TEXTS = 3


def measure_release(directory: Path, encoded: Encoded, task: Task, threads: int) -> dict[str, Any]:
    """Return size in MiB, milliseconds a text and the task's figures of the model in a directory."""
    model = FileModel(directory, threads)
    size = sum((directory / name).stat().st_size for name in (MODEL_FILE, WEIGHTS_FILE))
    return {"mib": round(size / 2**20, 1), **measured_logits(model.logits, encoded, task)}


def measured_logits(logits: Callable[[Batch], np.ndarray], encoded: Encoded, task: Task) -> dict[str, Any]:
    """Return milliseconds a text (the median of up to 50, one after the other) and the task's figures of all."""
    seconds = []
    for number in range(min(WARM_UP_TEXTS + TIMED_TEXTS, len(encoded))):
        batch = collate(encoded, np.array([number]))
        start = time.perf_counter()
        logits(batch)
        seconds.append(time.perf_counter() - start)
    timed = seconds[WARM_UP_TEXTS:] or seconds
    figures: Mapping[str, Any] = evaluate(numbers_only(logits), encoded, task).document()
    return {"milliseconds": round(1000 * statistics.median(timed), 2), **figures_of(figures)}
