"""The training loop: epochs, micro-batches, the optimiser, evaluation, checkpoints, memory watch. Knows no engine.

Everything that decides the numbers depends on (settings, data, bundle, plan, state) alone, so a run that was killed and
resumed ends with the same bytes as one that was not. Batches follow from (seed, epoch), dropout from (seed, step,
micro-batch, node), and a smaller plan taken under memory pressure is part of the state: its checkpoint is written
before the first step it changes.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from edge_far.console import Console, Progress
from edge_far.device.board.memory import release_free_memory, resident_set
from edge_far.device.board.pressure import MemoryWatch
from edge_far.device.engine.arrays import read_arrays_into, write_arrays
from edge_far.device.engine.backend import Backend, DropoutKey
from edge_far.device.evaluation import evaluate, metrics_document, metrics_text
from edge_far.device.optimizers.base import clipped_step, global_norm
from edge_far.device.optimizers.registry import make_optimizer
from edge_far.device.planning.plan import Plan
from edge_far.device.run.checkpoint import Checkpoint, RunDirectory, TrainingState
from edge_far.device.run.control import Control
from edge_far.device.run.prediction import Prediction
from edge_far.device.run.runlog import RunLog
from edge_far.device.run.settings import TrainSettings
from edge_far.device.run.signals import StopRequest
from edge_far.errors import ConfigError, Deferred
from edge_far.learning_rate import WarmupLinear
from edge_far.storage import sha256_of, staged_directory, write_atomically, write_json
from edge_far.texts.batches import Batch, collate, plan_epoch, split_batch
from edge_far.texts.encode import Encoded

__all__ = ["TrainData", "Trainer"]

SMOOTHING = 0.9
# Training has diverged where the smoothed loss is so many times chance, or the first loss where that is higher.
DIVERGED_RATIO = 5.0


@dataclass(frozen=True)
class TrainData:
    """Encoded training data, and evaluation data where there is some."""

    train: Encoded
    evaluation: Encoded | None
    classes: int


@dataclass(frozen=True)
class _Step:
    """What one optimiser step did; the loss is the batch's mean, tokens count the padding."""

    loss: float
    norm: float
    examples: int
    tokens: int
    seconds: float


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
        prediction: Prediction | None = None,
    ) -> None:
        self.settings, self.data, self.plan, self.run = settings, data, plan, run
        self.make_backend = make_backend
        self.watch = watch
        self.console = console
        self.checkpoint_seconds = checkpoint_seconds
        self.checkpoint_steps = checkpoint_steps
        self.control = control or Control(None)
        self.prediction = prediction
        self.backend = make_backend()
        self.optimizer = make_optimizer(
            settings.optimizer,
            self.backend.parameters,
            weight_decay=settings.weight_decay,
            no_decay=no_decay,
        )
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.total_steps = min(self.steps_per_epoch * settings.epochs, settings.max_steps or 10**12)
        warmup = round(settings.warmup_fraction * self.total_steps)
        self.schedule = WarmupLinear(settings.learning_rate, warmup, self.total_steps)
        self.state = TrainingState(optimizer=settings.optimizer)
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint (None: from the beginning); ConfigError where it is another optimiser's."""
        if checkpoint is None:
            return
        if checkpoint.state.optimizer != self.settings.optimizer:
            raise ConfigError(
                f"the checkpoint was written with {checkpoint.state.optimizer}, not {self.settings.optimizer}",
                where="--optimizer",
                hint=f"continue it with --optimizer {checkpoint.state.optimizer}, or start a new run",
            )
        if checkpoint.damaged:
            self.console.warn(
                f"{checkpoint.damaged} damaged checkpoint passed over: continuing from step {checkpoint.state.step}"
            )
        read_arrays_into(checkpoint.learners, self.backend.parameters)
        read_arrays_into(checkpoint.optimizer, self.optimizer.state_arrays())
        self.state = checkpoint.state

    def train(self, stop: StopRequest, log: RunLog) -> dict[str, Any]:
        """Run to the end and return the result; raises Interrupted or Deferred after a clean checkpoint."""
        stop.training = True
        first = self.state.step
        saved = time.monotonic()
        started = saved - self.state.seconds
        with self.console.progress(self.total_steps, "training", done=first) as progress:
            while True:
                if self.data.evaluation is not None and self._at_epoch_end() and self.state.evaluated < self.state.step:
                    self._evaluate(self.data.evaluation, stop, log)
                if self.state.step == self.total_steps:
                    break
                step = self._step(stop, log)
                self._advance(step, time.monotonic() - started)
                self._report(step, progress, log)
                self._refuse_divergence()
                stepped_down = self._watch_memory(log)
                if stepped_down or self._at_epoch_end() or self._checkpoint_due(saved):
                    saved = self._checkpoint(log)
                if self.state.step < self.total_steps:
                    paused = self.control.wait(stop, log, self.state.step)
                    started, saved = started + paused, saved + paused
        return self._finish(log, first)

    # --- one step --------------------------------------------------------------------------------------------

    def _batch(self, step: int) -> np.ndarray:
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            settings = self.settings
            order = plan_epoch(self.data.train.lengths, settings.batch_size, settings.seed, epoch)
            self._epoch = (epoch, order)
        return self._epoch[1][index]

    def _step(self, stop: StopRequest, log: RunLog) -> _Step:
        """Run one optimiser step; a wish to stop is granted before each micro-batch, and the step then not counted."""
        began = time.monotonic()
        step = self.state.step
        indices = self._batch(step)
        encoded = self.data.train
        loss, tokens = 0.0, 0
        for number, part in enumerate(split_batch(encoded.lengths, indices, self._rows_for)):
            self._stop_if_asked(stop, log)
            batch = collate(encoded, part)
            key = DropoutKey(self.settings.seed, step, number) if self.settings.dropout else None
            variant = self._variant_for(batch.input_ids.shape[1])
            loss += self.backend.accumulate(batch, 1.0 / len(indices), key, variant)
            tokens += batch.input_ids.size
        gradients = self.backend.gradients
        norm = global_norm(gradients)
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise self._diverged(f"at step {step + 1}: loss {loss:g}, gradient norm {norm:g}")
        clipped_step(self.optimizer, gradients, self.schedule(step), self.settings.clip_norm, norm)
        return _Step(loss, norm, len(indices), tokens, time.monotonic() - began)

    def _rows_for(self, length: int) -> int:
        return max(1, self.plan.rows_for(length) // self.state.divisor)

    def _variant_for(self, length: int) -> str:
        return self.plan.leanest if self.state.leanest else self.plan.variant_for(length)

    def _diverged(self, what: str) -> ConfigError:
        return ConfigError(
            f"training diverged {what}",
            where="--learning-rate",
            hint=f"{self.settings.learning_rate:g} is too high for this data; start a new run with a third of it",
        )

    # --- around the steps --------------------------------------------------------------------------------------

    def _advance(self, step: _Step, seconds: float) -> None:
        state = self.state
        before = step.loss if state.smoothed_loss is None else state.smoothed_loss
        self.state = replace(
            state,
            step=state.step + 1,
            examples=state.examples + step.examples,
            seconds=seconds,
            step_seconds=state.step_seconds + step.seconds,
            first_loss=step.loss if state.first_loss is None else state.first_loss,
            smoothed_loss=SMOOTHING * before + (1 - SMOOTHING) * step.loss,
            peak_rss_mib=max(state.peak_rss_mib, resident_set().peak_mib),
        )

    def _report(self, step: _Step, progress: Progress, log: RunLog) -> None:
        memory = resident_set()
        state = self.state
        log.write(
            "step",
            step=state.step,
            epoch=(state.step - 1) // self.steps_per_epoch + 1,
            loss=round(step.loss, 6),
            learning_rate=self.schedule(state.step - 1),
            grad_norm=round(step.norm, 6),
            examples=step.examples,
            tokens=step.tokens,
            seconds=round(step.seconds, 4),
            rss_mib=round(memory.now_mib, 1),
            peak_rss_mib=round(memory.peak_mib, 1),
        )
        rate = state.examples / max(state.seconds, 1e-9)
        progress.update(
            state.step,
            f"loss {state.smoothed_loss:.4f}  {rate:.1f} examples/s  "
            f"peak {memory.peak_mib:.0f} of {self.plan.budget_mib:.0f} MiB",
        )

    def _refuse_divergence(self) -> None:
        chance, state = math.log(max(self.data.classes, 2)), self.state
        smoothed, first = state.smoothed_loss or 0.0, state.first_loss or 0.0
        if smoothed > DIVERGED_RATIO * max(chance, first):
            raise self._diverged(f"by step {state.step}: the loss is {smoothed:.1f}, a guess has {chance:.1f}")

    def _at_epoch_end(self) -> bool:
        step = self.state.step
        return step > 0 and (step % self.steps_per_epoch == 0 or step == self.total_steps)

    def _evaluate(self, data: Encoded, stop: StopRequest, log: RunLog) -> None:
        """Measure the held-out data and keep the best learners; a stop throws the measurement away, not the steps."""

        def logits(batch: Batch) -> np.ndarray:
            self._stop_if_asked(stop, log)
            return self.backend.logits(batch)

        step = self.state.step
        metrics = evaluate(logits, data, self.data.classes, self.plan.evaluation_tokens)
        if not math.isfinite(metrics.loss):
            raise self._diverged(f"by step {step}: the held-out loss is {metrics.loss:g}")
        document = metrics_document(metrics)
        log.write("eval", step=step, **document)
        self.console.info(f"epoch {math.ceil(step / self.steps_per_epoch)}: {metrics_text(metrics)}")
        self.state = replace(self.state, evaluated=step)
        if self.state.best_accuracy is None or metrics.accuracy > self.state.best_accuracy:
            with staged_directory(self.run.best, replace=True) as staging:
                write_arrays(staging / "learners.safetensors", self.backend.parameters)
                write_json(staging / "metrics.json", {"step": step, **document})
            self.state = replace(self.state, best_step=step, best_accuracy=metrics.accuracy)
        self._checkpoint(log)

    def _stop_if_asked(self, stop: StopRequest, log: RunLog) -> None:
        if stop.requested:
            self._checkpoint(log)
            raise stop.error(self.state.step, self.total_steps)

    def _checkpoint_due(self, saved: float) -> bool:
        if self.checkpoint_steps is not None:
            return self.state.step % self.checkpoint_steps == 0
        return time.monotonic() - saved >= self.checkpoint_seconds

    def _checkpoint(self, log: RunLog) -> float:
        self.run.save(self.state, self.backend.parameters, self.optimizer.state_arrays())
        log.write("checkpoint", step=self.state.step)
        return time.monotonic()

    def _watch_memory(self, log: RunLog) -> bool:
        """Where memory is short, halve the micro-batches, then take the leanest step graph; then Deferred."""
        reason = self.watch.exceeded() if self.state.step < self.total_steps else None
        if reason is None:
            return False
        step = self.state.step
        divisible = any(self._rows_for(length) > 1 for length in self.plan.rows)
        if not divisible and all(self._variant_for(length) == self.plan.leanest for length in self.plan.rows):
            self._checkpoint(log)
            raise Deferred(
                f"{reason}, and the smallest plan is running",
                where=f"step {step}",
                hint="continue with --resume when there is more memory",
            )
        if divisible:
            self.state = replace(self.state, divisor=2 * self.state.divisor)
            what = f"micro-batches divided by {self.state.divisor}"
        else:
            self.state = replace(self.state, leanest=True)
            what = f"the leanest step graph, {self.plan.leanest},"
        log.write("step_down", step=step, reason=reason, divisor=self.state.divisor, leanest=self.state.leanest)
        self.console.warn(f"{reason}: {what} from step {step + 1} on")
        self.backend.close()
        del self.backend  # its gradients too, before new ones are made
        release_free_memory()
        self.backend = self.make_backend()
        self.watch.settle()
        return True

    def _finish(self, log: RunLog, first: int) -> dict[str, Any]:
        """Publish the best learners (the last ones without evaluation data) and the result."""
        metrics = None
        if self.data.evaluation is not None:
            _copy(self.run.best / "learners.safetensors", self.run.learners)
            metrics = json.loads((self.run.best / "metrics.json").read_bytes())
        else:
            if not all(np.isfinite(array).all() for array in self.backend.parameters.values()):
                raise self._diverged("with the last step")
            write_arrays(self.run.learners, self.backend.parameters)
        state = self.state
        result = {
            "steps": state.step,
            "seconds": round(state.seconds, 3),
            "step_seconds": round(state.step_seconds / max(state.step, 1), 4),
            "predicted": _predicted(self.prediction),
            "examples_per_second": round(state.examples / max(state.seconds, 1e-9), 2),
            "final_loss": None if state.smoothed_loss is None else round(state.smoothed_loss, 6),
            "eval": metrics,
            "peak_rss_mib": round(max(state.peak_rss_mib, resident_set().peak_mib), 1),
            "budget_mib": self.plan.budget_mib,
            "plan": self.plan.to_json(),
            "optimizer": self.settings.optimizer,
            "trained_parameters": sum(array.size for array in self.backend.parameters.values()),
            "backend": self.backend.name,
            "resumed_from_step": first or None,
            "step_downs": state.divisor.bit_length() - 1 + int(state.leanest),
            "learners_sha256": sha256_of(self.run.learners),
        }
        write_json(self.run.result, result)
        log.write("end", **result)
        return result


def _predicted(prediction: Prediction | None) -> dict[str, float] | None:
    if prediction is None:
        return None
    return {"step_seconds": round(prediction.step_seconds, 4), "seconds": round(prediction.seconds, 3)}


def _copy(source: Any, target: Any) -> None:
    def write(file: BinaryIO) -> None:
        with source.open("rb") as found:
            shutil.copyfileobj(found, file)

    write_atomically(target, write)
