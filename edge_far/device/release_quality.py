"""What fewer bits cost: a release's size, time and figures on labelled data, beside the same model in float32."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.device.evaluation import evaluate, numbers_only
from edge_far.device.file_model import FileModel
from edge_far.device.release_files import MODEL_FILE, WEIGHTS_FILE
from edge_far.tasks.figures import figures_of
from edge_far.tasks.interface import Task
from edge_far.texts.batches import collate
from edge_far.texts.encode import Encoded

__all__ = ["measure_release"]

TIMED_TEXTS = 50
WARM_UP_TEXTS = 3


def measure_release(directory: Path, encoded: Encoded, task: Task, threads: int) -> dict[str, Any]:
    """Return size in MiB, milliseconds of a text alone (the median of up to 50) and the task's figures of all texts."""
    logits = FileModel(directory, threads).logits
    seconds = []
    for number in range(min(WARM_UP_TEXTS + TIMED_TEXTS, len(encoded))):
        batch = collate(encoded, np.array([number]))
        start = time.perf_counter()
        logits(batch)
        seconds.append(time.perf_counter() - start)
    timed = seconds[WARM_UP_TEXTS:] or seconds
    size = sum((directory / name).stat().st_size for name in (MODEL_FILE, WEIGHTS_FILE))
    return {
        "mib": round(size / 2**20, 1),
        "milliseconds": round(1000 * statistics.median(timed), 2),
        **figures_of(evaluate(numbers_only(logits), encoded, task).document()),
    }
