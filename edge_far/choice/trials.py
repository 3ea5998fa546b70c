"""One trial: a rung trained as a device would train it, in torch, and what it then says of texts it has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edge_far.choice.frozen import FrozenOutputs
from edge_far.choice.linear_fit import LinearFit
from edge_far.choice.rungs import Rung
from edge_far.console import Console
from edge_far.errors import ConfigError
from edge_far.far.above_cut import above_cut, last_linear, logits_of, mean_loss
from edge_far.far.method import choose_learners, cut_of
from edge_far.far.nodes import block_paths
from edge_far.far.pooling import MeanPooledClassifier
from edge_far.far.prime import CLIP_NORM, WARMUP, WEIGHT_DECAY, Batch, PrimingSettings, adamw, priming_steps
from edge_far.far.reconfigure import reconfigure, trained_parameters
from edge_far.learning_rate import WarmupLinear
from edge_far.tasks.interface import Task
from edge_far.texts.batches import first_batches
from edge_far.texts.encode import Encoded

__all__ = ["Prepare", "Trial", "TrialResult", "Trials"]

EVALUATION_BATCH = 64
# Changes a model in place, given the batches and the settings of its priming; returns what trains.
Prepare = Callable[[nn.Module, Iterable[Batch], PrimingSettings], dict[str, nn.Parameter]]


@dataclass(frozen=True)
class Trial:
    """A rung, what its head reads, and how it is trained; `fitted` says that its head begins as a linear fit."""

    rung: Rung
    pooling: str
    learning_rate: float
    epochs: int
    fitted: bool = False


@dataclass(frozen=True, eq=False)
class TrialResult:
    """What a trial said of each held-out example (no answers where it diverged), what trained, and what it took."""

    predictions: np.ndarray
    trained: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Trials:
    """Trains rungs of one model on one data set; `model` is as it was loaded and is never changed.

    `heads` holds a fitted head by pooling. The warm-up, decay and clipping are those that travel with a bundle.
    """

    model: nn.Module
    encoded: Encoded
    frozen: FrozenOutputs
    batch_size: int
    seed: int
    dropout: bool
    priming: float
    heads: dict[str, LinearFit]
    task: Task

    def run(
        self,
        trial: Trial,
        train: np.ndarray,
        held_out: np.ndarray,
        tell: Callable[[int], None],
        prepare: Prepare | None = None,
    ) -> TrialResult:
        """Train on some examples, predict others; `tell` hears of each step.

        `prepare` says what trains, where that is not what the rung says.
        """
        started = time.monotonic()
        cut = cut_of(trial.rung.method, self._blocks)
        model = self._start(trial, cut)
        full = trial.rung.method == "full"
        with torch.random.fork_rng(devices=[]):
            try:
                if prepare is not None:
                    trained = prepare(model, *self._priming(trial, train, cut))
                else:
                    if not full:
                        self._reconfigure(model, trial, train, cut)
                    trained = trained_parameters(model, "train" if full else "frozen")
                self._train(model, trained, trial, train, cut, tell)
                predictions = self._predict(model, held_out, cut, trial.pooling)
            except ConfigError:  # the loss is no longer finite: what this rate is good for is known
                trained, predictions = {}, self.task.no_answers(self.encoded.targets_of(held_out))
        size = sum(parameter.numel() for parameter in trained.values())
        return TrialResult(predictions, size, time.monotonic() - started)

    def steps(self, trial: Trial, examples: int) -> int:
        """Return how many steps a trial takes."""
        return trial.epochs * math.ceil(examples / self.batch_size)

    def _start(self, trial: Trial, cut: int) -> nn.Module:
        """Return what lies above the cut, with the head that the trial begins with."""
        model = above_cut(self.model, cut)
        if trial.pooling == "mean" and not isinstance(model, MeanPooledClassifier):
            model = MeanPooledClassifier(model, self.seed)
        model.to(next(self.model.parameters()).device)
        if trial.fitted:
            self.heads[trial.pooling].put_into(last_linear(model))
        return model

    def _reconfigure(self, model: nn.Module, trial: Trial, train: np.ndarray, cut: int) -> None:
        """Choose the learners and freeze the others, as `edge-far export` does; nothing is below the cut any more."""
        batches, settings = self._priming(trial, train, cut)
        selection, _ = choose_learners(
            model, trial.rung.selection, batches, settings, Console(quiet=True), halves=False
        )
        reconfigure(model, selection)

    def _priming(self, trial: Trial, train: np.ndarray, cut: int) -> tuple[Iterator[dict[str, Any]], PrimingSettings]:
        """Return the batches of the priming steps, and how to prime."""
        rung, planned = trial.rung, self.steps(trial, len(train))
        steps = priming_steps(planned, self.priming)
        settings = PrimingSettings(
            steps=steps,
            planned_steps=max(planned, steps),
            learning_rate=trial.learning_rate,
            retention=rung.retention,
            seed=self.seed,
            attention_retention=rung.attention_retention if rung.attention == "heads" else None,
            loss=self.task.info.loss,
        )
        return self._batches(train, steps, cut, trial.pooling), settings

    def _train(
        self,
        model: nn.Module,
        trained: dict[str, nn.Parameter],
        trial: Trial,
        train: np.ndarray,
        cut: int,
        tell: Callable[[int], None],
    ) -> None:
        torch.manual_seed(self.seed)
        model.train(self.dropout)
        optimizer = adamw(trained, trial.learning_rate, WEIGHT_DECAY)
        planned = self.steps(trial, len(train))
        schedule = WarmupLinear(trial.learning_rate, round(WARMUP * planned), planned)
        for step, batch in enumerate(self._batches(train, planned, cut, trial.pooling)):
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
            logits = logits_of(model, batch)
            loss = mean_loss(self.task.info.loss, logits, batch["labels"])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trained.values(), CLIP_NORM)
            if not bool(torch.isfinite(norm)):
                raise ConfigError(f"diverged at step {step + 1}", where="--learning-rate")
            optimizer.step()
            tell(1)

    def _predict(self, model: nn.Module, held_out: np.ndarray, cut: int, pooling: str) -> np.ndarray:
        model.eval()
        order = np.argsort(self.encoded.lengths[held_out], kind="stable")
        found = self.task.no_answers(self.encoded.targets_of(held_out))
        with torch.no_grad():
            for start in range(0, len(order), EVALUATION_BATCH):
                rows = order[start : start + EVALUATION_BATCH]
                batch = self.frozen.batch(self.encoded, held_out[rows], cut, self._blocks, pooling)
                said = self.task.said(logits_of(model, batch).cpu().numpy(), batch["labels"])
                # Of tokens a batch has as many as its longest text; behind them is nothing to say.
                if said.shape[1:] == found.shape[1:]:
                    found[rows] = said
                else:
                    found[rows, : said.shape[1]] = said
        return found

    def _batches(self, examples: np.ndarray, count: int, cut: int, pooling: str) -> Iterator[dict[str, Any]]:
        """Yield batches of epoch after epoch, those that a device would train on were these its data."""
        for chosen in first_batches(self.encoded.lengths[examples], self.batch_size, self.seed, count):
            yield self.frozen.batch(self.encoded, examples[chosen], cut, self._blocks, pooling)

    @property
    def _blocks(self) -> int:
        return len(block_paths(self.model))
