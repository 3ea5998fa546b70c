"""The training loop: epochs, micro-batches, AdamW, evaluation, checkpoints, memory watch. Knows no engine.

Everything that decides the numbers depends on (settings, data, bundle, plan, step) alone, so a run that was killed and
resumed ends with the same bytes as one that was not. Batches follow from (seed, epoch), dropout from (seed, step,
micro-batch, node), and a smaller plan taken under memory pressure is written down before it takes effect.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edge_far.console import Console, Progress
from edge_far.device.arrays import read_arrays, read_arrays_into, write_arrays
from edge_far.device.backend import Backend, DropoutKey
from edge_far.device.batches import collate, plan_epoch, split_batch
from edge_far.device.checkpoint import Checkpoint, RunDirectory, TrainingState
from edge_far.device.control import Control
from edge_far.device.encode import Encoded
from edge_far.device.evaluate import evaluate, metrics_document, metrics_text
from edge_far.device.memory import release_free_memory, resident_set
from edge_far.device.metrics import Metrics
from edge_far.device.optimizer import AdamW, AdamWSettings, clip_scale, global_norm
from edge_far.device.plan import Plan
from edge_far.device.pressure import MemoryWatch
from edge_far.device.runlog import RunLog
from edge_far.device.schedule import WarmupLinear
from edge_far.device.settings import TrainSettings
from edge_far.device.signals import StopRequest
from edge_far.errors import ConfigError, Deferred
from edge_far.storage import staged_directory, write_atomically, write_json

__all__ = ["TrainData", "Trainer"]

SMOOTHING = 0.9


@dataclass(frozen=True)
class TrainData:
    """Encoded training data, and evaluation data where there is some."""

    train: Encoded
    evaluation: Encoded | None
    classes: int


class Trainer:
    """One run from its present state to its end; `make_backend` builds the engine anew after a step-down."""

    def __init__(
        self,
        settings: TrainSettings,
        data: TrainData,
        plan: Plan,
        run: RunDirectory,
        make_backend: Callable[[], Backend],
        watch: MemoryWatch,
        console: Console,
        *,
        no_decay: frozenset[str],
        checkpoint_seconds: float,
        checkpoint_steps: int | None = None,
        control: Control | None = None,
    ) -> None:
        self.settings, self.data, self.plan, self.run = settings, data, plan, run
        self.make_backend = make_backend
        self.watch = watch
        self.console = console
        self.checkpoint_seconds = checkpoint_seconds
        self.checkpoint_steps = checkpoint_steps
        self.control = control or Control(None)
        self.backend = make_backend()
        self.optimizer = AdamW(
            self.backend.parameters, AdamWSettings(weight_decay=settings.weight_decay), no_decay=no_decay
        )
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.total_steps = min(self.steps_per_epoch * settings.epochs, settings.max_steps or 10**12)
        warmup = round(settings.warmup_fraction * self.total_steps)
        self.schedule = WarmupLinear(settings.learning_rate, warmup, self.total_steps)
        self.state = TrainingState(0, None, None, 0.0, 0)
        self.divisors: list[tuple[int, int]] = []  # (from this step on, divide planned rows by)
        self.last_metrics: Metrics | None = None
        self.last_loss = math.nan
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint (None: from the beginning) and from the step-downs written so far."""
        if self.run.step_downs.is_file():
            self.divisors = [(step, divisor) for step, divisor in json.loads(self.run.step_downs.read_bytes())]
        if checkpoint is None:
            return
        read_arrays_into(checkpoint.learners, self.backend.parameters)
        self.optimizer.load_state(read_arrays(checkpoint.optimizer))
        self.state = checkpoint.state

    def train(self, stop: StopRequest, log: RunLog) -> dict[str, Any]:
        """Run to the end and return the result; raises Interrupted or Deferred after a clean checkpoint."""
        started = saved = time.monotonic() - self.state.seconds
        first = self.state.step
        smoothed: float | None = None
        with self.console.progress(self.total_steps, "training", done=first) as progress:
            while self.state.step < self.total_steps:
                began = time.monotonic()
                loss, norm, tokens = self._step()
                smoothed = loss if smoothed is None else SMOOTHING * smoothed + (1 - SMOOTHING) * loss
                self.last_loss = smoothed
                now = time.monotonic()
                examples = len(self._batch(self.state.step))
                self.state = replace(
                    self.state,
                    step=self.state.step + 1,
                    examples=self.state.examples + examples,
                    seconds=now - started,
                )
                self._report(log, progress, loss, smoothed, norm, examples, tokens, now - began)
                if self.state.step % self.steps_per_epoch == 0 or self.state.step == self.total_steps:
                    self._end_of_epoch(log)
                    saved = self._checkpoint(log)
                elif self._checkpoint_due(saved):
                    saved = self._checkpoint(log)
                if self.state.step < self.total_steps:
                    paused = self.control.wait(stop, log, self.state.step)
                    started, saved = started + paused, saved + paused
                if stop.requested and self.state.step < self.total_steps:
                    self._checkpoint(log)
                    raise stop.error(self.state.step, self.total_steps)
                self._watch_memory(log)
        return self._finish(log, first)

    # --- one step --------------------------------------------------------------------------------------------

    def _batch(self, step: int) -> np.ndarray:
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            settings = self.settings
            order = plan_epoch(self.data.train.lengths, settings.batch_size, settings.seed, epoch)
            self._epoch = (epoch, order)
        return self._epoch[1][index]

    def _step(self) -> tuple[float, float, int]:
        """Run one optimiser step; return loss (mean over the batch), gradient norm, and padded tokens."""
        step = self.state.step
        indices = self._batch(step)
        encoded = self.data.train
        loss, tokens = 0.0, 0
        for number, part in enumerate(split_batch(encoded.lengths, indices, self._rows_for)):
            batch = collate(encoded, part)
            key = DropoutKey(self.settings.seed, step, number) if self.settings.dropout else None
            loss += self.backend.accumulate(batch, 1.0 / len(indices), key)
            tokens += batch.input_ids.size
        gradients = self.backend.gradients
        norm = global_norm(gradients)
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise ConfigError(
                f"training diverged at step {step + 1}: loss {loss:g}, gradient norm {norm:g}",
                where="--learning-rate",
                hint=f"{self.settings.learning_rate:g} is too high for this data; try a third of it",
            )
        self.optimizer.step(gradients, self.schedule(step), clip_scale(norm, self.settings.clip_norm))
        for gradient in gradients.values():
            gradient.fill(0.0)
        return loss, norm, tokens

    def _rows_for(self, length: int) -> int:
        divisor = max((divisor for since, divisor in self.divisors if since <= self.state.step), default=1)
        return max(1, self.plan.rows_for(length) // divisor)

    # --- around the steps --------------------------------------------------------------------------------------

    def _report(
        self,
        log: RunLog,
        progress: Progress,
        loss: float,
        smoothed: float,
        norm: float,
        examples: int,
        tokens: int,
        seconds: float,
    ) -> None:
        memory = resident_set()
        step = self.state.step
        log.write(
            "step",
            step=step,
            epoch=(step - 1) // self.steps_per_epoch + 1,
            loss=round(loss, 6),
            learning_rate=self.schedule(step - 1),
            grad_norm=round(norm, 6),
            examples=examples,
            tokens=tokens,
            seconds=round(seconds, 4),
            rss_mib=round(memory.now_mib, 1),
            peak_rss_mib=round(memory.peak_mib, 1),
        )
        rate = self.state.examples / max(self.state.seconds, 1e-9)
        progress.update(
            step,
            f"loss {smoothed:.4f}  {rate:.1f} examples/s  peak {memory.peak_mib:.0f} of {self.plan.budget_mib:.0f} MiB",
        )

    def _end_of_epoch(self, log: RunLog) -> None:
        if self.data.evaluation is None:
            return
        metrics = evaluate(self.backend.logits, self.data.evaluation, self.data.classes)
        self.last_metrics = metrics
        log.write("eval", step=self.state.step, **metrics_document(metrics))
        self.console.info(f"epoch {math.ceil(self.state.step / self.steps_per_epoch)}: {metrics_text(metrics)}")
        best = self.state.best_accuracy
        if best is None or metrics.accuracy > best:
            with staged_directory(self.run.best, replace=True) as staging:
                write_arrays(staging / "learners.safetensors", self.backend.parameters)
                write_json(staging / "metrics.json", {"step": self.state.step, **metrics_document(metrics)})
            self.state = replace(self.state, best_step=self.state.step, best_accuracy=metrics.accuracy)

    def _checkpoint_due(self, saved: float) -> bool:
        if self.checkpoint_steps is not None:
            return self.state.step % self.checkpoint_steps == 0
        return time.monotonic() - saved >= self.checkpoint_seconds

    def _checkpoint(self, log: RunLog) -> float:
        self.run.save(self.state, self.backend.parameters, self.optimizer.state_arrays())
        log.write("checkpoint", step=self.state.step)
        return time.monotonic()

    def _watch_memory(self, log: RunLog) -> None:
        reason = self.watch.exceeded()
        if reason is None:
            return
        step = self.state.step
        if self._rows_for(self.plan.longest) == 1 and max(self._rows_for(n) for n in self.plan.rows) == 1:
            self._checkpoint(log)
            raise Deferred(
                f"{reason}, and the smallest plan is running",
                where=f"step {step}",
                hint="continue with --resume",
            )
        divisor = 2 * max((divisor for _, divisor in self.divisors), default=1)
        self.divisors.append((step, divisor))
        write_json(self.run.step_downs, self.divisors)
        log.write("step_down", step=step, reason=reason, divisor=divisor)
        self.console.warn(f"{reason}: micro-batches divided by {divisor} from step {step + 1} on")
        self.backend.close()
        release_free_memory()
        self.backend = self.make_backend()
        self.watch.settle()

    def _finish(self, log: RunLog, first: int) -> dict[str, Any]:
        """Publish the best learners (the last ones without evaluation data) and the result."""
        best = self.run.best / "learners.safetensors"
        if self.data.evaluation is not None and best.is_file():
            write_atomically(self.run.learners, best.read_bytes())
            metrics = json.loads((self.run.best / "metrics.json").read_bytes())
        else:
            write_arrays(self.run.learners, self.backend.parameters)
            metrics = None
        memory = resident_set()
        result = {
            "steps": self.state.step,
            "seconds": round(self.state.seconds, 3),
            "examples_per_second": round(self.state.examples / max(self.state.seconds, 1e-9), 2),
            "final_loss": round(self.last_loss, 6) if math.isfinite(self.last_loss) else None,
            "eval": metrics,
            "peak_rss_mib": round(memory.peak_mib, 1),
            "budget_mib": self.plan.budget_mib,
            "plan": self.plan.to_json(),
            "trained_parameters": sum(array.size for array in self.backend.parameters.values()),
            "backend": self.backend.name,
            "resumed_from_step": first or None,
            "step_downs": len(self.divisors),
        }
        write_json(self.run.result, result)
        log.write("end", **result)
        return result
