"""The training loop: epochs, micro-batches, the optimiser, evaluation, checkpoints, memory watch. Knows no engine.

Everything that decides the numbers depends on (settings, data, bundle, plan, state) alone, so a run that was killed and
resumed ends with the same bytes as one that was not. Batches follow from (seed, epoch), dropout from (seed, step,
micro-batch, node), and a smaller plan taken under memory pressure is part of the state: its checkpoint is written
before the first step it changes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from edge_far.bundles.arrays import read_arrays_into
from edge_far.console import Console, Progress
from edge_far.device.board.memory import release_free_memory, resident_set
from edge_far.device.board.pressure import MemoryWatch
from edge_far.device.cache.hidden import HiddenStates
from edge_far.device.engine.backend import Backend, DropoutKey
from edge_far.device.evaluation import evaluate
from edge_far.device.optimizers.base import clipped_step, global_norm
from edge_far.device.optimizers.proximal import Proximal
from edge_far.device.optimizers.registry import make_optimizer
from edge_far.device.planning.plan import Plan
from edge_far.device.run.checkpoint import Checkpoint, RunDirectory
from edge_far.device.run.control import Control
from edge_far.device.run.figures import progress_text, result_figures, step_figures
from edge_far.device.run.prediction import Prediction
from edge_far.device.run.runlog import RunLog
from edge_far.device.run.settings import TrainSettings
from edge_far.device.run.signals import StopRequest
from edge_far.device.run.training_state import Step, TrainingState
from edge_far.errors import ConfigError, Deferred
from edge_far.learning_rate import WarmupLinear
from edge_far.tasks.interface import Task
from edge_far.texts.batches import Batch, collate, plan_epoch, split_batch
from edge_far.texts.encode import Encoded

__all__ = ["TrainData", "Trainer"]


@dataclass(frozen=True)
class TrainData:
    """Encoded training data, and evaluation data where there is some; `hidden` where the bundle has a prefix."""

    train: Encoded
    evaluation: Encoded | None
    task: Task
    hidden: HiddenStates | None = None

    def batch(self, encoded: Encoded, indices: np.ndarray) -> Batch:
        """Return a padded batch of one of the two, as the engine reads it."""
        batch = collate(encoded, indices)
        return batch if self.hidden is None else self.hidden.attach(encoded, indices, batch)


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
        proximal: Proximal | None = None,
    ) -> None:
        self.settings, self.data, self.plan, self.run = settings, data, plan, run
        self.make_backend = make_backend
        self.watch = watch
        self.console = console
        self.checkpoint_seconds = checkpoint_seconds
        self.checkpoint_steps = checkpoint_steps
        self.control = control or Control(None)
        self.prediction = prediction
        self.proximal = proximal
        self.chance = data.task.chance(data.train.labels)
        self.backend = make_backend()
        self.optimizer = make_optimizer(
            settings.optimizer,
            self.backend.parameters,
            weight_decay=settings.weight_decay,
            no_decay=no_decay,
        )
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.total_steps = settings.total_steps(self.steps_per_epoch)
        warmup = round(settings.warmup_fraction * self.total_steps)
        self.schedule = WarmupLinear(settings.learning_rate, warmup, self.total_steps)
        self.state = TrainingState(optimizer=settings.optimizer)
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Continue from a checkpoint (None: from the beginning); ConfigError where it is another optimiser's."""
        if checkpoint is None:
            return
        checkpoint.refuse_other_optimizer(self.settings.optimizer)
        checkpoint.refuse_later_step(self.total_steps)
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
        # Infinity and NaN end a run in one line (divergence), not in NumPy's warnings.
        with np.errstate(all="ignore"), self.console.progress(self.total_steps, "training", done=first) as progress:
            while True:
                if self.data.evaluation is not None and self._at_epoch_end() and self.state.evaluated < self.state.step:
                    self._evaluate(self.data.evaluation, stop, log)
                if self.state.step == self.total_steps:
                    break
                step = self._step(stop, log)
                self._advance(step, time.monotonic() - started, progress, log)
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

    def _step(self, stop: StopRequest, log: RunLog) -> Step:
        """Run one optimiser step; a wish to stop is granted before each micro-batch, and the step then not counted."""
        began = time.monotonic()
        step = self.state.step
        indices = self._batch(step)
        encoded = self.data.train
        rows_for = partial(self.state.rows_for, self.plan)
        loss, tokens = 0.0, 0
        for number, part in enumerate(split_batch(encoded.lengths, indices, rows_for)):
            self._stop_if_asked(stop, log)
            batch = self.data.batch(encoded, part)
            key = DropoutKey(self.settings.seed, step, number) if self.settings.dropout else None
            variant = self.state.variant_for(self.plan, batch.input_ids.shape[1])
            loss += self.backend.accumulate(batch, 1.0 / len(indices), key, variant)
            tokens += batch.input_ids.size
        gradients = self.backend.gradients
        if self.proximal is not None:
            self.proximal.add_to(gradients, self.backend.parameters)
        norm = global_norm(gradients)
        if not math.isfinite(norm) or not math.isfinite(loss):
            raise self._diverged(f"at step {step + 1}: loss {loss:g}, gradient norm {norm:g}")
        clipped_step(self.optimizer, gradients, self.schedule(step), self.settings.clip_norm, norm)
        return Step(loss, norm, len(indices), tokens, time.monotonic() - began)

    def _diverged(self, what: str) -> ConfigError:
        return ConfigError(
            f"training diverged {what}",
            where="--learning-rate",
            hint=f"{self.settings.learning_rate:g} is too high for this data; start a new run with a third of it",
        )

    # --- around the steps --------------------------------------------------------------------------------------

    def _advance(self, step: Step, seconds: float, progress: Progress, log: RunLog) -> None:
        """Count a step and tell of it; raises ConfigError where training has diverged."""
        memory, number = resident_set(), self.state.step
        self.state = self.state.after(step, seconds=seconds, peak_rss_mib=memory.peak_mib)
        epoch = number // self.steps_per_epoch + 1
        rate = self.schedule(number)
        log.write("step", **step_figures(step, memory, number=number + 1, epoch=epoch, learning_rate=rate))
        progress.update(self.state.step, progress_text(self.state, memory, self.plan.budget_mib))
        diverged = self.state.divergence(self.chance)
        if diverged:
            raise self._diverged(diverged)

    def _at_epoch_end(self) -> bool:
        step = self.state.step
        return step > 0 and (step % self.steps_per_epoch == 0 or step == self.total_steps)

    def _evaluate(self, data: Encoded, stop: StopRequest, log: RunLog) -> None:
        """Measure the held-out data and keep the best learners; a stop throws the measurement away, not the steps."""

        def logits(batch: Batch) -> np.ndarray:
            self._stop_if_asked(stop, log)
            return self.backend.logits(batch)

        step = self.state.step
        tokens = self.plan.evaluation_tokens
        metrics = evaluate(logits, data, self.data.task, tokens, self.data.batch, fit=True)
        if not math.isfinite(metrics.loss):
            raise self._diverged(f"by step {step}: the held-out loss is {metrics.loss:g}")
        document = metrics.document()
        log.write("eval", step=step, **document)
        self.console.info(f"epoch {math.ceil(step / self.steps_per_epoch)}: {metrics.text()}")
        self.state = replace(self.state, evaluated=step)
        if self.state.best_score is None or metrics.score > self.state.best_score:
            self.run.keep_best(self.backend.parameters, {"step": step, **document})
            self.state = replace(self.state, best_step=step, best_score=metrics.score)
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
        smaller = self.state.stepped_down(self.plan)
        if smaller is None:
            self._checkpoint(log)
            raise Deferred(
                f"{reason}, and the smallest plan is running",
                where=f"step {self.state.step}",
                hint="continue with --resume when there is more memory",
            )
        self.state = smaller
        log.write("step_down", step=smaller.step, reason=reason, divisor=smaller.divisor, leanest=smaller.leanest)
        self.console.warn(f"{reason}: {smaller.smaller_plan_text(self.plan)} from step {smaller.step + 1} on")
        self._renew_backend()
        return True

    def _renew_backend(self) -> None:
        """Make the engine anew for a smaller plan; the old one's memory goes first."""
        self.backend.close()
        del self.backend  # its gradients too, before new ones are made
        release_free_memory()
        self.backend = self.make_backend()
        self.watch.settle()

    def _finish(self, log: RunLog, first: int) -> dict[str, Any]:
        """Publish the best learners (the last ones without evaluation data) and the result."""
        learners, metrics = self.backend.parameters, None
        if self.data.evaluation is not None:
            metrics = self.run.publish_best()
        else:
            if not all(np.isfinite(array).all() for array in learners.values()):
                raise self._diverged("with the last step")
            self.run.publish(learners)
        figures = result_figures(
            self.state,
            self.plan,
            learners,
            self.prediction,
            metrics=metrics,
            peak_rss_mib=resident_set().peak_mib,
            backend=self.backend.name,
            first_step=first,
        )
        result = self.run.finish(figures)
        log.write("end", **result)
        return result
