"""What a measured process is told, and the batches that all rows share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_far.bench.work.task import Task, batches, micro_batches

TASK = Task(
    engine="edge-far",
    model="tiny",
    bundle="bundle",
    retention=0.1,
    embeddings="frozen",
    attention=None,
    batch=7,
    micro_batch=3,
    length=16,
    threads=1,
    steps=2,
    warmup=1,
    dropout=False,
    seed=3,
    optimizer="adamw8bit",
)


def test_a_task_survives_its_file(tmp_path: Path) -> None:
    TASK.write(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == TASK


def test_every_engine_gets_the_same_batches() -> None:
    first, second = batches(TASK, 50, 2), batches(replace(TASK, engine="torch", attention="sdpa"), 50, 2)
    assert len(first) == 3
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours.input_ids, theirs.input_ids)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        assert ours.input_ids.shape == (7, 16) and ours.attention_mask.all()
    assert not np.array_equal(first[0].input_ids, first[1].input_ids)
    seen = np.unique([batch.input_ids for batch in batches(replace(TASK, steps=20), 50, 2)])
    np.testing.assert_array_equal(seen, np.arange(50))


def test_micro_batches_hold_every_row_once() -> None:
    (batch, *_) = batches(TASK, 50, 2)
    parts = list(micro_batches(batch, 3))
    assert [len(part.labels) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([part.input_ids for part in parts]), batch.input_ids)
    np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), batch.labels)
