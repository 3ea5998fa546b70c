"""What a whole run will take on this machine: its steps and evaluations, each by the cost model (step_times.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_far.bundles.manifest import Prefix
from edge_far.device.engine.backend import FillWidth, texts_of_a_run
from edge_far.device.evaluation import rows_by_length
from edge_far.device.planning.plan import Plan
from edge_far.device.planning.step_times import StepTimes
from edge_far.device.run.settings import TrainSettings
from edge_far.texts.batches import padded_length, plan_epoch, split_batch
from edge_far.texts.encode import Encoded

__all__ = ["Prediction", "predict_fill", "predict_run", "predict_texts"]


@dataclass(frozen=True)
class Prediction:
    """What a run will take on this machine: the mean step, and all steps and evaluations, in seconds."""

    step_seconds: float
    seconds: float


def predict_run(
    times: StepTimes, plan: Plan, settings: TrainSettings, train: Encoded, held_out: Encoded | None
) -> Prediction:
    """Return what training takes: the steps of the first epoch stand for all, checkpoints are not counted."""
    batches = plan_epoch(train.lengths, settings.batch_size, settings.seed, 0)
    steps = [
        times.update
        + sum(
            times.micro_batch(plan.variant_for(length), len(part), length)
            for part in split_batch(train.lengths, indices, plan.rows_for)
            for length in [_length(train, part)]
        )
        for indices in batches
    ]
    mean = sum(steps) / len(steps)
    count = settings.total_steps(len(batches))
    total = mean * count
    if held_out is not None:
        groups = rows_by_length(held_out.lengths, plan.evaluation_tokens)
        once = sum(times.evaluation(len(group), _length(held_out, group)) for group in groups)
        total += once * math.ceil(count / len(batches))
    return Prediction(mean, total)


def predict_fill(times: StepTimes, prefix: Prefix, width: FillWidth, *sets: Encoded) -> float:
    """Return the seconds in which the prefix computes all of these texts, none of which is in the cache."""
    lengths, counts = np.unique(np.concatenate([each.lengths for each in sets]), return_counts=True)
    groups = zip(lengths.tolist(), counts.tolist(), strict=True)
    return sum(predict_texts(times, prefix, width, length, count) for length, count in groups)


def predict_texts(times: StepTimes, prefix: Prefix, width: FillWidth, length: int, count: int) -> float:
    """Return the same of so many texts of one length."""
    together = min(texts_of_a_run(prefix, length, width.tokens), count)
    return count / together * times.prefix(length, width.threads, together)


def _length(encoded: Encoded, indices: np.ndarray) -> int:
    """Return what a batch of these examples is padded to (batches.collate)."""
    longest = int(encoded.lengths[indices].max())
    return max(longest, min(padded_length(longest), encoded.max_seq_len))
