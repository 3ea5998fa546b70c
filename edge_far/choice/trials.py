"""One trial: a rung trained as a device would train it, in torch, and what it then says of texts it has not seen."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
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
from edge_far.far.above_cut import above_cut, last_linear, logits_of
from edge_far.far.method import cut_of, select_above_cut
from edge_far.far.nodes import block_paths
from edge_far.far.pooling import MeanPooledClassifier
from edge_far.far.prime import PrimingSettings, adamw, prime, priming_steps
from edge_far.far.reconfigure import reconfigure, trained_parameters
from edge_far.learning_rate import WarmupLinear
from edge_far.texts.batches import plan_epoch
from edge_far.texts.encode import Encoded

__all__ = ["Trial", "TrialResult", "Trials"]

EVALUATION_BATCH = 64
NO_ANSWER = -1


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
    """What a trial said of each held-out example, int64 [H] (-1 where it diverged), what trained, and what it took."""

    trial: Trial
    predictions: np.ndarray
    trained: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Trials:
    """Trains rungs of one model on one data set; `model` is as it was loaded and is never changed.

    `heads` holds a fitted head by pooling. `keep_head` says that the model's own head stays. The warm-up, decay and
    clipping are those that travel with a bundle.
    """

    model: nn.Module
    encoded: Encoded
    frozen: FrozenOutputs
    batch_size: int
    seed: int
    dropout: bool
    priming: float
    heads: dict[str, LinearFit]
    embeddings: str = "frozen"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def run(self, trial: Trial, train: np.ndarray, held_out: np.ndarray, tell: Callable[[int], None]) -> TrialResult:
        """Train on some examples, predict others; `tell` hears of each step."""
        started = time.monotonic()
        model, cut = self._start(trial), cut_of(trial.rung.method, len(block_paths(self.model)))
        full = trial.rung.method == "full"
        with torch.random.fork_rng(devices=[]):
            try:
                if not full:
                    self._reconfigure(model, trial, train, cut)
                trained = trained_parameters(model, "train" if full else self.embeddings)
                self._train(model, trained, trial, train, cut, tell)
                predictions = self._predict(model, held_out, cut, trial.pooling)
            except ConfigError:  # the loss is no longer finite: what this rate is good for is known
                trained, predictions = {}, np.full(len(held_out), NO_ANSWER)
        size = sum(parameter.numel() for parameter in trained.values())
        return TrialResult(trial, predictions, size, time.monotonic() - started)

    def steps(self, trial: Trial, examples: int) -> int:
        """Return how many steps a trial takes."""
        return trial.epochs * math.ceil(examples / self.batch_size)

    def _start(self, trial: Trial) -> nn.Module:
        """Return what lies above the cut, with the head that the trial begins with."""
        model = above_cut(self.model, cut_of(trial.rung.method, len(block_paths(self.model))))
        if trial.pooling == "mean" and not isinstance(model, MeanPooledClassifier):
            model = MeanPooledClassifier(model, self.seed)
        model.to(next(self.model.parameters()).device)
        if trial.fitted:
            with torch.no_grad():
                linear, fit = last_linear(model), self.heads[trial.pooling]
                linear.weight.copy_(torch.from_numpy(fit.weight))
                linear.bias.copy_(torch.from_numpy(fit.bias))
        return model

    def _reconfigure(self, model: nn.Module, trial: Trial, train: np.ndarray, cut: int) -> None:
        """Prime where learners are to be chosen, choose them and freeze the others, as `edge-far export` does."""
        rung = trial.rung
        share = rung.attention_retention if rung.attention == "heads" else None
        to_choose = any(0 < part < 1 for part in (rung.retention, share) if part is not None)
        result = None
        if rung.selection == "far" and to_choose and len(block_paths(model)):
            planned = self.steps(trial, len(train))
            steps = priming_steps(planned, self.priming)
            settings = PrimingSettings(
                steps=steps,
                planned_steps=max(planned, steps),
                learning_rate=trial.learning_rate,
                retention=rung.retention,
                seed=self.seed,
                embeddings=self.embeddings,
                attention_retention=share,
            )
            batches = self._batches(train, steps, cut, trial.pooling)
            result = prime(model, batches, settings, Console(quiet=True), halves=False)
        selection = select_above_cut(
            model,
            rung.selection,
            rung.retention,
            share,
            0,
            metrics=result.metrics if result is not None else None,
            head_metrics=result.heads.metrics if result is not None and result.heads is not None else None,
            seed=self.seed,
        )
        reconfigure(model, selection)

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
        optimizer = adamw(model, trained, trial.learning_rate, self.weight_decay)
        planned = self.steps(trial, len(train))
        schedule = WarmupLinear(trial.learning_rate, round(self.warmup * planned), planned)
        for step, batch in enumerate(self._batches(train, planned, cut, trial.pooling)):
            for group in optimizer.param_groups:
                group["lr"] = schedule(step)
            logits = logits_of(model, batch)
            loss = nn.functional.cross_entropy(logits, torch.as_tensor(batch["labels"]).to(logits.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(trained.values(), self.clip_norm)
            if not bool(torch.isfinite(norm)):
                raise ConfigError(f"diverged at step {step + 1}", where="--learning-rate")
            optimizer.step()
            tell(1)

    def _predict(self, model: nn.Module, held_out: np.ndarray, cut: int, pooling: str) -> np.ndarray:
        model.eval()
        order = held_out[np.argsort(self.encoded.lengths[held_out], kind="stable")]
        found = np.zeros(len(self.encoded), np.int64)
        with torch.no_grad():
            for start in range(0, len(order), EVALUATION_BATCH):
                rows = order[start : start + EVALUATION_BATCH]
                batch = self.frozen.batch(self.encoded, rows, cut, len(block_paths(self.model)), pooling)
                found[rows] = logits_of(model, batch).argmax(dim=1).cpu().numpy()
        return found[held_out]

    def _batches(self, examples: np.ndarray, count: int, cut: int, pooling: str) -> Iterator[dict[str, Any]]:
        """Yield batches of epoch after epoch, those that a device would train on were these its data."""
        epoch, blocks = 0, len(block_paths(self.model))
        while count > 0:
            for chosen in plan_epoch(self.encoded.lengths[examples], self.batch_size, self.seed, epoch)[:count]:
                yield self.frozen.batch(self.encoded, examples[chosen], cut, blocks, pooling)
                count -= 1
            epoch += 1
