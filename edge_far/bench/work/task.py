"""What a measured process is told and what it answers, as JSON files; and the batches that every row trains on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from edge_far.storage import write_json
from edge_far.texts.batches import Batch

__all__ = ["CLIP_NORM", "LEARNING_RATE", "Measurement", "Task", "batches", "micro_batches", "random_batch"]

LEARNING_RATE = 1e-5
CLIP_NORM = 1.0


class _Document:
    """A frozen dataclass of plain JSON values, written to and read from a file."""

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        write_json(path, dataclasses.asdict(self))  # type: ignore[call-overload]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_bytes()))


@dataclass(frozen=True)
class Task(_Document):
    """One row to measure: `model` is a geometry or directory (torch), `bundle` a bundle's directory (other engines).

    `phase` is step, or fill: the bundle's prefix computes and keeps a batch of texts. `variant` names the bundle's step
    graph; with `budget_mib` the plan chooses it and the micro-batch, for that budget. `predict_time` asks for the cost
    model's time too (a measurement of the machine, before this one).
    """

    engine: str
    model: str
    bundle: str | None
    retention: float
    embeddings: str
    attention: str | None
    batch: int
    micro_batch: int
    length: int
    threads: int
    steps: int
    warmup: int
    dropout: bool
    seed: int
    optimizer: str
    pooling: str = "cls"
    variant: str = "step"
    phase: str = "step"
    budget_mib: float | None = None
    predict_time: bool = False


@dataclass(frozen=True)
class Measurement(_Document):
    """What one process measured: seconds of each step after the warm-up, sizes in MiB.

    `predicted_peak_mib`, `parts_mib` (what it consists of), `fill_peak_mib` (predicted, where there is a fill) and,
    where asked for, `predicted_step_seconds` are the plan's, for edge-far alone. `loss` is that of the last step, None
    of a fill. `flops` of a step's products are counted in PyTorch alone: a bundle says its own.
    """

    step_seconds: list[float]
    forward_backward_seconds: list[float]
    optimizer_seconds: list[float]
    peak_rss_mib: float
    predicted_peak_mib: float | None
    trained_parameters: int
    runtime: str
    loss: float | None
    predicted_step_seconds: float | None = None
    parts_mib: dict[str, float] | None = None
    fill_peak_mib: float | None = None
    micro_batch: int | None = None
    variant: str | None = None
    flops: float | None = None


def batches(task: Task, vocabulary: int, labels: int) -> list[Batch]:
    """Return a batch for every step, full-length rows of ids over the whole vocabulary: the same for every engine."""
    random = np.random.default_rng(task.seed)
    shape = (task.batch, task.length)
    made = []
    for _ in range(task.warmup + task.steps):
        made.append(random_batch(random, shape, vocabulary, labels))
    return made


def random_batch(random: np.random.Generator, shape: tuple[int, int], vocabulary: int, labels: int) -> Batch:
    """Return full-length rows of ids over the whole vocabulary, [batch, length], with random labels."""
    ids = random.integers(0, vocabulary, shape, np.int64)
    return Batch(ids, np.ones(shape, np.int64), None, random.integers(0, labels, shape[0], np.int64))


def micro_batches(batch: Batch, rows: int) -> Iterator[Batch]:
    """Cut a batch into parts of at most `rows` rows."""
    for start in range(0, len(batch.labels), rows):
        part = slice(start, start + rows)
        yield Batch(batch.input_ids[part], batch.attention_mask[part], None, batch.labels[part])
