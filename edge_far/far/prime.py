"""Priming: the first steps of fine-tuning, run to see which FFN nodes and attention heads move most.

All of them train, with the set-up and the schedule of the whole planned run, so that priming is its true
beginning. Source: arXiv 2205.01541, section III. This file measures; the choice of learners is select.py's.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_far.console import Console, Progress
from edge_far.errors import ConfigError, DataError
from edge_far.far.above_cut import logits_of, mean_loss
from edge_far.far.heads import find_attention_blocks
from edge_far.far.nodes import Units, find_ffn_blocks
from edge_far.far.reconfigure import trained_parameters
from edge_far.far.select import learner_count, top_nodes
from edge_far.learning_rate import WarmupLinear

__all__ = [
    "CLIP_NORM",
    "LOW_AGREEMENT",
    "MIN_PRIMING_STEPS",
    "WARMUP",
    "WEIGHT_DECAY",
    "Batch",
    "Measured",
    "PrimingResult",
    "PrimingSettings",
    "adamw",
    "prime",
    "priming_steps",
    "top_overlap",
]

MIN_PRIMING_STEPS = 50
# What travels with a bundle, and what priming and trials do too.
WARMUP, WEIGHT_DECAY, CLIP_NORM = 0.1, 0.01, 1.0
LOW_AGREEMENT = 0.1

Batch = Mapping[str, Any]
Snapshot = list[list[torch.Tensor]]


@dataclass(frozen=True)
class PrimingSettings:
    """How to prime.

    `steps` are run out of `planned_steps`, the length of the whole training; `warmup` is the share of the planned steps
    in which the learning rate rises. `retention` only sets how many top nodes the split-half overlap compares, and
    `attention_retention` how many top heads; where that is None, heads are not measured. `start` is what the weights
    are afterwards: 'continue' keeps the primed ones, 'reset' puts the pretrained ones back. `embeddings` is 'frozen' or
    'train'. Of the first `cut` blocks nothing trains, and nothing is measured. `loss` is the task's (above_cut.py).
    """

    steps: int
    planned_steps: int
    learning_rate: float
    retention: float = 0.1
    weight_decay: float = WEIGHT_DECAY
    warmup: float = WARMUP
    clip_norm: float = CLIP_NORM
    seed: int = 0
    embeddings: str = "frozen"
    start: str = "continue"
    cut: int = 0
    attention_retention: float | None = None
    loss: str = "softmax"


@dataclass(frozen=True, eq=False)
class Measured:
    """What was found of nodes, or of heads: see PrimingResult."""

    metrics: tuple[np.ndarray, ...]
    overlap: float | None
    chance: float | None


@dataclass(frozen=True, eq=False)
class PrimingResult:
    """What priming found.

    `metrics` holds float64 [ffn] per block above the cut: the L1 norm of each node's change. `overlap` is
    the split-half overlap (see `prime`) and `chance` what two random choices would give; both are None where
    nothing is chosen (retention 0 or 1). `heads` is the same of attention heads, float64 [heads] per block, or None.
    Losses are those of the first and the last step.
    """

    metrics: tuple[np.ndarray, ...]
    overlap: float | None
    chance: float | None
    steps: int
    seconds: float
    first_loss: float
    last_loss: float
    heads: Measured | None = None


def priming_steps(planned_steps: int, fraction: float) -> int:
    """Return the number of priming steps: `fraction` of the planned ones, rounded up, and at least 50.

    Below about 50 steps the metric is mostly noise, because Adam's first updates are sign-like.
    """
    if not (math.isfinite(fraction) and 0 <= fraction <= 1):
        raise ConfigError(f"the priming fraction is {fraction}", where="priming", hint="give a number from 0 to 1")
    return max(math.ceil(fraction * planned_steps), MIN_PRIMING_STEPS)


def top_overlap(a: Sequence[np.ndarray], b: Sequence[np.ndarray], retention: float) -> float:
    """Return the share of top nodes that two measurements agree on, mean over the blocks, from 0 to 1."""
    shares = []
    for one, other in zip(a, b, strict=True):
        count = learner_count(retention, len(one))
        common = np.intersect1d(top_nodes(one, count), top_nodes(other, count))
        shares.append(len(common) / max(count, 1))
    return float(np.mean(shares))


def prime(
    model: nn.Module, batches: Iterable[Batch], settings: PrimingSettings, console: Console, *, halves: bool = True
) -> PrimingResult:
    """Fine-tune `model` in place for `settings.steps` steps and measure how far every FFN node moved.

    A batch is a mapping with `labels` [B] and what above_cut.logits_of reads, as NumPy arrays or tensors; `batches`
    must yield `settings.steps` of them.

    The split-half overlap says how much of the choice is signal. Nodes are measured by the first half of the
    steps, and again by as many steps from the same start, with a new optimiser, on the batches of the second
    half; the overlap is the share of top nodes in common. The two share no batch, no moment of Adam and no
    dropout mask. This costs half the priming again, and understates the whole priming, which has twice the
    steps. (To cut one run in two would cost nothing, but those halves share Adam's moments and say little
    about the data: see docs/lab/priming-overlap.md.) Without `halves` it is not measured.

    Raises UsageError for a model without a classification head, DataError for too few batches or a label the
    model has no output for, ConfigError for wrong settings or a loss that is no longer finite.
    """
    _check(settings)
    kinds = _kinds(model, settings)
    blocks = [block for kind in kinds for block in kind.blocks]
    started = time.monotonic()
    drawn = list(itertools.islice(batches, settings.steps))
    if len(drawn) < settings.steps:
        raise DataError(f"priming needs {settings.steps} batches, the data gave {len(drawn)}")
    half = settings.steps // 2
    control = drawn[-half:] if halves and any(kind.chance is not None for kind in kinds) else []
    with (
        _restored_flags(model),
        torch.random.fork_rng(devices=[]),
        console.progress(len(control) + settings.steps, "priming") as progress,
    ):
        model.train()
        run = _Run(model, trained_parameters(model, settings.embeddings, settings.cut), blocks, settings, progress)
        pretrained = {name: value.detach().clone() for name, value in run.parameters.items()}
        start = _snapshot(blocks)
        run.train(control, settings.seed + 1)
        other_half = _snapshot(blocks)
        _copy_back(run.parameters, pretrained)
        losses = run.train(drawn, settings.seed, snapshot_after=half)
        end = _snapshot(blocks)
        if settings.start == "reset":
            _copy_back(run.parameters, pretrained)
    first, second, whole = (_changes(blocks, start, after) for after in (run.snapshot, other_half, end))
    measured: list[Measured] = []
    for number, kind in enumerate(kinds):
        part = slice(number * len(kind.blocks), (number + 1) * len(kind.blocks))
        overlap = None if kind.chance is None or not control else top_overlap(first[part], second[part], kind.retention)
        measured.append(Measured(tuple(whole[part]), overlap, kind.chance))
        _report_overlap(kind.name, measured[-1], settings.steps, console)
    return PrimingResult(
        metrics=measured[0].metrics,
        overlap=measured[0].overlap,
        chance=measured[0].chance,
        steps=settings.steps,
        seconds=time.monotonic() - started,
        first_loss=losses[0],
        last_loss=losses[-1],
        heads=measured[1] if len(measured) > 1 else None,
    )


@dataclass(frozen=True, eq=False)
class _Kind:
    """Nodes or heads: what is measured in the blocks above the cut, and the share that will learn."""

    name: str
    blocks: Sequence[Units]
    retention: float

    @property
    def chance(self) -> float | None:
        """Return the overlap of two random choices, or None where there is nothing to choose."""
        shares = [learner_count(self.retention, block.units) / block.units for block in self.blocks]
        return float(np.mean(shares)) if all(0 < share < 1 for share in shares) else None


def _kinds(model: nn.Module, settings: PrimingSettings) -> list[_Kind]:
    kinds = [_Kind("nodes", find_ffn_blocks(model)[settings.cut :], settings.retention)]
    if settings.attention_retention is not None:
        kinds.append(_Kind("heads", find_attention_blocks(model)[settings.cut :], settings.attention_retention))
    return kinds


class _Run:
    """Training from the model's present weights; all calls of `train` share a progress bar."""

    def __init__(
        self,
        model: nn.Module,
        parameters: dict[str, nn.Parameter],
        blocks: Sequence[Units],
        settings: PrimingSettings,
        progress: Progress,
    ) -> None:
        self.model, self.parameters, self.blocks = model, parameters, blocks
        self.settings, self.progress = settings, progress
        self.done = 0
        self.snapshot: Snapshot = []

    def train(self, batches: Sequence[Batch], seed: int, snapshot_after: int | None = None) -> list[float]:
        """Train one step a batch with a new optimiser; return the losses."""
        torch.manual_seed(seed)
        settings = self.settings
        optimizer = adamw(self.parameters, settings.learning_rate, settings.weight_decay)
        total = max(settings.planned_steps, settings.steps)
        schedule = WarmupLinear(settings.learning_rate, round(settings.warmup * total), total)
        losses: list[float] = []
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
            loss = mean_loss(settings.loss, logits_of(self.model, batch), batch["labels"])
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise ConfigError(
                    f"the loss is {losses[-1]} at priming step {step + 1}",
                    where="learning_rate",
                    hint=f"lower it from {settings.learning_rate:g}",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters.values(), settings.clip_norm)
            optimizer.step()
            if step + 1 == snapshot_after:
                self.snapshot = _snapshot(self.blocks)
            self.done += 1
            self.progress.update(self.done, f"loss {losses[-1]:.4f}")
        return losses


def adamw(parameters: Mapping[str, nn.Parameter], learning_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW without decay on biases and LayerNorms."""
    plain = {n for n, p in parameters.items() if p.dim() < 2}
    return torch.optim.AdamW(
        [
            {"params": [p for n, p in parameters.items() if n not in plain], "weight_decay": weight_decay},
            {"params": [p for n, p in parameters.items() if n in plain], "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )


def _snapshot(blocks: Sequence[Units]) -> Snapshot:
    return [[value.detach().clone() for value in block.values()] for block in blocks]


def _changes(blocks: Sequence[Units], before: Snapshot, after: Snapshot) -> list[np.ndarray]:
    """Return the L1 norm of each unit's change."""
    return [
        block.l1([new - old for old, new in zip(was, now, strict=True)])
        for block, was, now in zip(blocks, before, after, strict=True)
    ]


def _copy_back(parameters: dict[str, nn.Parameter], values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def _report_overlap(kind: str, measured: Measured, steps: int, console: Console) -> None:
    overlap, chance = measured.overlap, measured.chance
    if overlap is None or chance is None:
        return
    console.info(f"priming: split-half overlap of the chosen {kind} {overlap:.2f} (chance {chance:.2f})")
    if (overlap - chance) / (1 - chance) < LOW_AGREEMENT:
        console.warn(
            f"the halves of the {steps} priming steps hardly agree on which {kind} learn most (overlap "
            f"{overlap:.2f}, chance {chance:.2f}): little better than random; prime for more steps"
        )


def _check(settings: PrimingSettings) -> None:
    if settings.steps < 4:  # a half must have two steps: the warm-up's first moves nothing
        raise ConfigError(f"priming steps is {settings.steps}", where="steps", hint="at least 4")
    if not (math.isfinite(settings.learning_rate) and settings.learning_rate > 0):
        raise ConfigError(f"the learning rate is {settings.learning_rate}", where="learning_rate", hint="above 0")
    if not 0 <= settings.warmup <= 1:
        raise ConfigError(f"warmup is {settings.warmup}", where="warmup", hint="a share from 0 to 1")
    if settings.start not in ("continue", "reset"):
        raise ConfigError(f"start is '{settings.start}'", where="start", hint="one of continue, reset")


@contextmanager
def _restored_flags(model: nn.Module) -> Iterator[None]:
    """Put training mode and requires_grad back as they were."""
    training = model.training
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        yield
    finally:
        model.train(training)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
            parameter.grad = None
