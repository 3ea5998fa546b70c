"""The training phase of a cycle: starts the trainer, has it watched, and decides what its end means.

Read `advance` first. An end that was seen ends the phase (trained, failed, discarded), makes it wait (Deferred) or
starts it over with a smaller plan; what an end that nobody saw means is said in interruptions.py.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_far.daemon.children.child_end import ChildEnd
from edge_far.daemon.children.supervisor import Supervisor
from edge_far.daemon.context import Context
from edge_far.daemon.intake.unreadable import quarantine_unreadable, read_left_out
from edge_far.daemon.store.journal import CycleRow
from edge_far.daemon.training.candidate import LEARNERS, build_candidate
from edge_far.daemon.training.interruptions import Interruptions
from edge_far.daemon.training.overseer import Overseer
from edge_far.daemon.training.trainer import run_trainer
from edge_far.errors import (
    BudgetError,
    BundleUntrusted,
    ConfigError,
    DataError,
    Deferred,
    EdgeFarError,
    StorageError,
)

__all__ = ["TrainingPhase"]

MAX_DEATHS = 2
PASSED_ON = {kind.exit_code: kind for kind in (StorageError, BudgetError)}
KEPT_FIGURES = ("steps", "seconds", "peak_rss_mib", "budget_mib", "final_loss")


class TrainingPhase:
    """Trains on a cycle's material and builds its candidate; what a fleet offered is one without training."""

    def __init__(self, context: Context, supervisor: Supervisor) -> None:
        self._context = context
        self._supervisor = supervisor
        self._journal = context.journal
        self._files = context.state.cycle

    def advance(self, row: CycleRow) -> CycleRow:
        """Train, or go on with it, and build the candidate; return the row in its next state.

        Raises Deferred (75) when training has to wait, StorageError (74), BudgetError (78), Unavailable (69).
        """
        if "offer" in row.details:
            build_candidate(self._context, self._supervisor, None, self._files.candidate, offered=self._files.offered)
            return self._journal.update(row, state="trained")
        run = self._files.run(row.attempt)
        if not (run / "result.json").is_file():
            row = self._note_start(row, run)
            if Interruptions.of(row.details).ask_for_smaller_plan and _micro_batch(row, run) > 1:
                return self._smaller_plan(row, run)
            row, end = self._watched_trainer(row, run)
            row = self._quarantine(row)
            if end.stopped and end.status != 0:
                raise Deferred(f"training stopped at step {end.progress.step} of {end.progress.steps}: {end.stopped}")
            if end.status != 0:
                return self._failed(row, run, end)
        row = self._quarantine(row)  # once more: the last daemon may have died before it
        build_candidate(self._context, self._supervisor, run, self._files.candidate)
        result = json.loads((run / "result.json").read_bytes())
        figures = {name: result[name] for name in KEPT_FIGURES}
        return self._journal.update(row, state="trained", details={"training": figures})

    def _quarantine(self, row: CycleRow) -> CycleRow:
        """Put what the trainer could not read into quarantine, and note how many."""
        files = self._files
        count = quarantine_unreadable(self._context.store, read_left_out(files.left_out), files.train)
        if not count:
            return row
        return self._journal.update(row, details={"unreadable": row.details.get("unreadable", 0) + count})

    # --- the trainer ------------------------------------------------------------------------------------------

    def _note_start(self, row: CycleRow, run: Path) -> CycleRow:
        """Note that the trainer starts, and from which checkpoint: nobody may be there to see its end."""
        newest = max((path.name for path in run.glob("checkpoints/step-*")), default="")
        interruptions = Interruptions.of(row.details).started(newest)
        return self._journal.update(row, state="training", details=interruptions.as_details())

    def _watched_trainer(self, row: CycleRow, run: Path) -> tuple[CycleRow, ChildEnd]:
        """Run the trainer and note its end; one that was killed for its slowness has been interrupted."""
        ended = Interruptions.of(row.details).ended().as_details()
        try:
            end = self._run_trainer(row, run)
        except EdgeFarError:
            with suppress(StorageError):
                self._journal.update(row, details=ended)
            raise
        cut_short = end.stopped is not None and end.status < 0
        return self._journal.update(row, details=_training_figures(row, end) | ({} if cut_short else ended)), end

    def _run_trainer(self, row: CycleRow, run: Path) -> ChildEnd:
        context = self._context
        more: list[str | Path] = ["--cache-exclusive", *Interruptions.of(row.details).checkpoint_options()]
        if self._files.labels.is_file():
            more += ["--labels", self._files.labels]
        if limit := row.details.get("micro_batch_limit"):
            more += ["--micro-batch", str(limit)]
        return run_trainer(
            context,
            self._supervisor,
            self._files,
            run,
            learners=context.releases.path(row.base) / LEARNERS,
            epochs=row.details["epochs"],
            learning_rate=row.details["learning_rate"],
            more=more,
            wish=Overseer(context),
        )

    # --- what an end means --------------------------------------------------------------------------------------

    def _failed(self, row: CycleRow, run: Path, end: ChildEnd) -> CycleRow:
        """Say what a failed trainer means: try again, wait, or end the cycle."""
        described = end.describe()
        if end.broken_environment:
            raise end.unavailable("the trainer")
        if end.error.get("kind") == BundleUntrusted.__name__:  # which says nothing about the examples
            raise BundleUntrusted(f"the trainer {described}")
        if end.status == DataError.exit_code and row.details.get("unreadable"):
            return self._end(row, "discarded", described)  # what is left waits for others to train with
        if end.died or end.status not in (*PASSED_ON, Deferred.exit_code, ConfigError.exit_code):
            return self._died(row, run, end)
        if end.status == Deferred.exit_code:
            raise Deferred(f"the trainer {described}")
        if end.status == ConfigError.exit_code and end.error.get("kind") != BudgetError.__name__:
            diverged = str(end.error.get("message", "")).startswith("training diverged")
            return self._end(row, "failed" if diverged else "discarded", described)
        raise PASSED_ON[end.status](f"the trainer {described}")

    def _died(self, row: CycleRow, run: Path, end: ChildEnd) -> CycleRow:
        """After a death that was seen: start over with the next smaller plan, or set the new examples aside.

        A death before the run's first step says nothing about the examples, unless the trainer says so: they are kept.
        """
        large_or_slow = end.oom_killed or end.stalled
        if not (_has_stepped(run) or large_or_slow or end.status == DataError.exit_code):
            raise end.unavailable("the trainer, before its first step,")
        deaths = [*row.details.get("deaths", []), f"attempt {row.attempt} {end.describe()}"][-MAX_DEATHS:]
        row = self._journal.update(row, details={"deaths": deaths})
        if len(deaths) < MAX_DEATHS:
            return self._smaller_plan(row, run)
        if large_or_slow and not row.details.get("step"):
            self._smaller_plan(row, run)
            raise Deferred(f"the trainer does not get to its first step: {'; '.join(deaths)}; the examples are kept")
        since = self._journal.consumed_change()
        text = f"cycle {row.id}: training on them failed {MAX_DEATHS} times ({deaths[-1]})"
        with self._context.store.transaction():
            count = self._context.store.set_aside(since, row.change, text)
        row = self._journal.update(row, details={"set_aside": count})
        return self._end(row, "failed", f"{'; '.join(deaths)}; {count} new examples were set aside")

    def _smaller_plan(self, row: CycleRow, run: Path) -> CycleRow:
        """Start over with half the micro-batch."""
        interruptions = Interruptions.of(row.details)
        if interruptions.ask_for_smaller_plan:
            interruptions = interruptions.with_smaller_plan()
        details = {"micro_batch_limit": max(1, _micro_batch(row, run) // 2), **interruptions.as_details()}
        return self._journal.update(row, state="collected", attempt=row.attempt + 1, details=details)

    def _end(self, row: CycleRow, state: str, reason: str) -> CycleRow:
        return self._journal.update(row, state=state, details={"reason": reason})


def _has_stepped(run: Path) -> bool:
    """Return whether a run's trainers, this one or one before it, have come to a step."""
    try:
        with (run / "log.jsonl").open("rb") as file:
            return any(b'"event": "step"' in line for line in file)
    except OSError:
        return False


def _micro_batch(row: CycleRow, run: Path) -> int:
    """Return the micro-batch of a run's plan; of a run that died before it had one, the limit it was given, or 2."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return min(map(int, json.loads((run / "run.json").read_bytes())["rows"].values()))
    return int(row.details.get("micro_batch_limit") or 2)


def _training_figures(row: CycleRow, end: ChildEnd) -> dict[str, Any]:
    """Return what `status` tells of the training so far; a trainer that told nothing leaves what is known."""
    progress = end.progress
    known = row.details
    return {
        "micro_batch": progress.micro_batch or known.get("micro_batch"),
        "predicted_peak_mib": progress.predicted_peak_mib or known.get("predicted_peak_mib"),
        "step": progress.step or known.get("step"),
        "steps": progress.steps or known.get("steps"),
        "paused_s": round(known.get("paused_s", 0.0) + progress.paused_s, 1),
        "step_downs": known.get("step_downs", 0) + progress.step_downs,
    }
