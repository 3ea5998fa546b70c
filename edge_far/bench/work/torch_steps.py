"""Measures training steps in PyTorch: the baseline, as well as a user can easily have it (workstation)."""

from __future__ import annotations

import time

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from edge_far.bench.work.models import LABELS, make_config, make_model
from edge_far.bench.work.task import CLIP_NORM, LEARNING_RATE, Measurement, Task, batches, micro_batches
from edge_far.device.board.memory import resident_set
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.reconfigure import reconfigure, trained_parameters
from edge_far.far.select import select_learners
from edge_far.texts.batches import Batch

__all__ = ["measure_torch"]


def measure_torch(task: Task) -> Measurement:
    """Train a model of random weights; below full retention it is reconfigured as FAR does it."""
    torch.set_num_threads(task.threads)
    assert task.attention is not None
    config = make_config(task.model, dropout=task.dropout)
    model = make_model(config, attention=task.attention, seed=task.seed, pooling=task.pooling).train()
    if task.retention < 1:
        reconfigure(model, select_learners("random", task.retention, find_ffn_blocks(model), seed=task.seed))
    trained = list(trained_parameters(model, task.embeddings).values())
    # The fused kernel is the quickest AdamW that PyTorch has for the CPU, and transformers' default.
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)
    forward_backward, update = [], []
    loss = 0.0
    data = batches(task, int(model.config.vocab_size), LABELS)
    for batch in data:
        began = time.perf_counter()
        loss = sum(_accumulate(model, part, task.batch) for part in micro_batches(batch, task.micro_batch))
        computed = time.perf_counter()
        torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()
        ended = time.perf_counter()
        forward_backward.append(computed - began)
        update.append(ended - computed)
    return Measurement(
        step_seconds=[a + b for a, b in zip(forward_backward, update, strict=True)][task.warmup :],
        forward_backward_seconds=forward_backward[task.warmup :],
        optimizer_seconds=update[task.warmup :],
        peak_rss_mib=resident_set().peak_mib,  # before anything is counted
        predicted_peak_mib=None,
        trained_parameters=sum(parameter.numel() for parameter in trained),
        runtime=f"torch {torch.__version__}",
        loss=loss,
        flops=task.batch * count_flops(model, data[0]),
    )


def count_flops(model: torch.nn.Module, batch: Batch) -> float:
    """Return the operations of products, forward and backward, over the first example of a batch.

    From here on the model's attention is eager: what a fused kernel computes twice is not counted.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        _accumulate(model, next(micro_batches(batch, 1)), 1)
    return float(counter.get_total_flops())


def _accumulate(model: torch.nn.Module, part: Batch, batch_size: int) -> float:
    ids, mask, labels = (torch.from_numpy(array) for array in (part.input_ids, part.attention_mask, part.labels))
    loss = cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels, reduction="sum") / batch_size
    loss.backward()
    return float(loss.detach())
