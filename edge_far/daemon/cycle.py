"""One adaptation cycle as a state machine: each transition is safe to repeat, whenever the power failed.

    collected -> training -> trained -> decided -> released -> finished
                    |           |          |
                    failed      rejected   discarded    -> finished

docs/adaptation.md has the table of what is on disk when a state is committed. Everything that needs NumPy or ONNX
Runtime runs in a child (training/supervisor.py). Read `advance` first.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_far import __version__
from edge_far.daemon.context import Context
from edge_far.daemon.gate.health import ask_health_command
from edge_far.daemon.release_files import Release
from edge_far.daemon.store.backup import back_up
from edge_far.daemon.store.journal import FINISHED, CycleRow
from edge_far.daemon.training.candidate import LEARNERS, ChildFailed, build_candidate, ensure_factory, run_to_end
from edge_far.daemon.training.interruptions import Interruptions
from edge_far.daemon.training.overseer import Overseer
from edge_far.daemon.training.supervisor import ChildEnd, Supervisor
from edge_far.errors import BudgetError, ConfigError, DataError, Deferred, EdgeFarError, StorageError, Unavailable
from edge_far.storage import fsync_directory, staged_directory, storage_error
from edge_far.texts.data import Example

__all__ = ["AdaptationCycle"]

TRAIN, HELD_OUT, BASE = "train.jsonl", "held_out.jsonl", "base.jsonl"
MAX_DEATHS = 2
PASSED_ON = {kind.exit_code: kind for kind in (StorageError, Unavailable, BudgetError)}


class AdaptationCycle:
    """Starts a cycle, or takes up the one under way, and brings it to its end.

    `advance` raises Deferred (75) when training has to wait, StorageError (74), BudgetError (78), Unavailable
    (69); the row then stays where it is.
    """

    def __init__(self, context: Context, supervisor: Supervisor) -> None:
        self._context = context
        self._supervisor = supervisor
        self._journal = context.journal
        self._directory = context.state.cycle
        self._steps: dict[str, Callable[[CycleRow], CycleRow]] = {
            "collected": self._train,
            "training": self._train,
            "trained": self._decide,
            "decided": self._release,
            "released": self._finish,
            "rejected": self._finish,
            "failed": self._finish,
            "discarded": self._finish,
        }

    def collect(self, base: Release) -> CycleRow:
        """Write down what this cycle trains and measures on, and start it; Deferred when that is nothing."""
        store, change = self._context.store, self._context.store.highest_change()
        known = set(self._context.bundle.manifest.labels)
        with staged_directory(self._directory, replace=True) as staging:
            counts = {
                name: _write_examples(
                    staging / name,
                    (s.example for s in store.examples(held_out=held_out, up_to_change=change)),
                    known,
                )
                for name, held_out in ((TRAIN, False), (HELD_OUT, True))
            }
            if not counts[TRAIN][0]:
                raise Deferred("no example to train on: all are held out or have unknown labels")
            if self._context.profile.adaptation.use_replay:
                with (staging / TRAIN).open("ab") as file:
                    counts["replay"] = _append_examples(file, store.replay(held_out=False), known)
                counts[BASE] = _write_examples(staging / BASE, store.replay(held_out=True), known)
        unknown = counts[TRAIN][1] + counts[HELD_OUT][1]
        self._context.notes.tell(
            "labels",
            f"{unknown} examples have labels that this model does not know and are not used" if unknown else None,
            "export a bundle with these labels (edge-far export)",
        )
        asked, defaults = self._context.profile.adaptation, self._context.bundle.manifest.defaults
        details = {
            "version": __version__,
            "bundle": self._context.bundle.fingerprint,
            "epochs": asked.epochs or defaults.epochs,  # a profile loaded anew must not change a run under way
            "learning_rate": defaults.learning_rate * asked.learning_rate_percent / 100,
            "examples": {name: used for name, (used, _) in counts.items()},
        }
        return self._journal.start("collected", change=change, base=base.id, details=details)

    def advance(self, row: CycleRow) -> CycleRow:
        """Bring a cycle to its end and return its row."""
        while row.state != FINISHED:
            self._context.changed()
            if row.state in ("collected", "training", "trained") and (reason := self._outdated(row)):
                row = self._end(row, "discarded", reason)
            try:
                row = self._steps[row.state](row)
            except ChildFailed as error:
                row = self._end(row, "failed", str(error))
        self._context.changed()
        return row

    def _outdated(self, row: CycleRow) -> str | None:
        """Return why going on makes no sense, or None."""
        current = self._context.releases.current_id()
        if current != row.base:
            return f"the current release is {current}, no longer {row.base}"
        if row.details.get("bundle") != self._context.bundle.fingerprint:
            return "the bundle was replaced"
        if row.details.get("version") != __version__:
            return "edge-far was updated"
        if not (self._directory / TRAIN).is_file():
            return "its files are gone"
        if row.state == "trained" and not (self._directory / "candidate" / LEARNERS).is_file():
            return "its candidate is gone"
        return None

    # --- training ----------------------------------------------------------------------------------------------

    def _train(self, row: CycleRow) -> CycleRow:
        run = self._directory / f"run-{row.attempt}"
        if not (run / "result.json").is_file():
            row = self._note_start(row, run)
            if Interruptions.of(row.details).ask_for_smaller_plan and _micro_batch(row, run) > 1:
                return self._smaller_plan(row, run)
            row, end = self._watched_trainer(row, run)
            if end.stopped and end.status != 0:
                raise Deferred(f"training stopped at step {end.progress.step} of {end.progress.steps}: {end.stopped}")
            if end.status != 0:
                return self._failed_training(row, run, end)
        build_candidate(self._context, self._supervisor, run, self._directory / "candidate")
        result = json.loads((run / "result.json").read_bytes())
        figures = {name: result[name] for name in ("steps", "seconds", "peak_rss_mib", "budget_mib", "final_loss")}
        return self._journal.update(row, state="trained", details={"training": figures})

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
        resume = (run / "run.json").is_file()
        if not resume:
            shutil.rmtree(run, ignore_errors=True)
        control = self._directory / "control"
        control.unlink(missing_ok=True)
        smaller = row.details.get("micro_batch_limit")
        arguments: list[str | Path] = [
            *("train", context.bundle.root, "--train", self._directory / TRAIN, "--out", run),
            *("--learners", context.releases.directory / "releases" / row.base / LEARNERS),
            *("--profile", context.profile_source, *Interruptions.of(row.details).checkpoint_options()),
            *("--epochs", str(row.details["epochs"]), "--learning-rate", repr(row.details["learning_rate"])),
            *("--control", control, "--json", "-q"),
            *(["--resume"] if resume else []),
            *(["--micro-batch", str(smaller)] if smaller else []),
        ]
        return self._supervisor.run(
            *(arguments, self._directory / "train"), log=run / "log.jsonl", control=control, wish=Overseer(context)
        )

    def _failed_training(self, row: CycleRow, run: Path, end: ChildEnd) -> CycleRow:
        described = end.describe()
        if end.died or end.status not in (*PASSED_ON, Deferred.exit_code, ConfigError.exit_code):
            return self._retry(row, run, described)
        if end.status == Deferred.exit_code:
            raise Deferred(f"the trainer {described}")
        kind = end.error.get("kind")
        if end.status == ConfigError.exit_code and kind != BudgetError.__name__:
            if str(end.error.get("message", "")).startswith("training diverged"):
                return self._end(row, "failed", described)
            return self._end(row, "discarded", described)
        raise PASSED_ON[end.status](f"the trainer {described}")

    def _retry(self, row: CycleRow, run: Path, reason: str) -> CycleRow:
        """After a death that was seen: start over with the next smaller plan, or set the new examples aside."""
        deaths = [*row.details.get("deaths", []), f"attempt {row.attempt} {reason}"]
        row = self._journal.update(row, details={"deaths": deaths})
        if len(deaths) < MAX_DEATHS:
            return self._smaller_plan(row, run)
        since = self._journal.consumed_change()
        text = f"cycle {row.id}: training on them failed {MAX_DEATHS} times ({deaths[-1]})"
        with self._context.store.transaction():
            count = self._context.store.set_aside(since, row.change, text)
        row = self._journal.update(row, details={"set_aside": count})
        return self._end(row, "failed", f"{'; '.join(deaths)}; {count} new examples were set aside")

    def _smaller_plan(self, row: CycleRow, run: Path) -> CycleRow:
        interruptions = Interruptions.of(row.details)
        if interruptions.ask_for_smaller_plan:
            interruptions = interruptions.with_smaller_plan()
        details = {"micro_batch_limit": max(1, _micro_batch(row, run) // 2), **interruptions.as_details()}
        return self._journal.update(row, state="collected", attempt=row.attempt + 1, details=details)

    # --- gate and release ---------------------------------------------------------------------------------------

    def _decide(self, row: CycleRow) -> CycleRow:
        context, candidate = self._context, self._directory / "candidate"
        context.notifier.status("comparing the candidate with the current release")
        asked = context.profile.adaptation
        settings = {
            "confidence": asked.confidence_percent / 100,
            "tolerance": asked.tolerance_percent / 100,
            "base_tolerance": asked.base_tolerance_percent / 100,
            "min_examples": asked.min_held_out_examples,
            "base_required": asked.base_required,
        }
        releases = context.releases.directory / "releases"
        arguments: list[str | Path] = [
            *("decide", "--candidate", candidate, "--current", releases / row.base),
            *("--held-out", self._directory / HELD_OUT, "--settings", json.dumps(settings)),
            *("--max-seq-len", str(context.bundle.manifest.defaults.max_seq_len)),
            *("--threads", str(context.profile.compute.threads), "--out", self._directory / "decision.json"),
            *("--json", "-q"),
        ]
        if row.details["examples"].get(BASE):
            arguments += [
                "--base",
                self._directory / BASE,
                "--factory",
                releases / ensure_factory(context, self._supervisor).id,
            ]
        run_to_end(context, self._supervisor, arguments, self._directory / "decide")
        decision = json.loads((self._directory / "decision.json").read_bytes())
        details: dict[str, Any] = {"decision": decision}
        if not decision["accepted"]:
            return self._end(row, "rejected", "; ".join(decision["reasons"]), details)
        if asked.health_command:
            context.notifier.status("asking the health command")
            try:
                command = shlex.split(asked.health_command)
            except ValueError as error:
                raise ConfigError(f"cannot be split: {error}", where="adaptation.health_command") from error
            health = ask_health_command(
                command, candidate, timeout_s=asked.health_timeout_minutes * 60, tick=context.notifier.ping
            )
            details["health"] = health.text
            if not health.accepted:
                return self._end(row, "rejected", health.text, details)
        return self._journal.update(
            row, state="decided", candidate=context.releases.next_id(candidate), details=details
        )

    def _release(self, row: CycleRow) -> CycleRow:
        context, id = self._context, row.candidate or ""
        context.notifier.status(f"releasing {id}")
        current = context.releases.current_id()
        if current != id:
            if current != row.base:
                return self._end(row, "discarded", f"the current release is {current}, no longer {row.base}")
            device = row.details["decision"]["device"]
            facts = {
                **{"kind": "adapted", "bundle": row.details["bundle"], "cycle": row.id},
                **{"examples": row.details["examples"], "change": row.change},
                **{"held_out": device, "base": row.details["decision"]["base"]},
            }
            context.releases.publish(id, self._directory / "candidate", replaces=row.base, facts=facts)
            try:
                context.releases.switch(id, expected=row.base)
            except DataError:
                if context.releases.current_id() == row.base:
                    raise
                return self._end(row, "discarded", "someone rolled back meanwhile")
        context.notes.tell("release", None)
        return self._journal.update(row, state="released", details={"reason": row.details["decision"]["reasons"][0]})

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self, row: CycleRow, state: str, reason: str, details: dict[str, Any] | None = None) -> CycleRow:
        return self._journal.update(row, state=state, details={"reason": reason, **(details or {})})

    def tidy(self) -> None:
        """After a cycle: copy the store, which knows of the end by now, and remove the cycle's files.

        Where the files are still there without a cycle under way, this was interrupted and is done again.
        """
        if self._journal.under_way() is not None or not self._directory.exists():
            return
        back_up(self._context.store, self._context.state.store, self._context.spool)
        try:
            shutil.rmtree(self._directory)
            fsync_directory(self._directory.parent)
        except OSError as error:
            raise storage_error(error, self._directory) from error

    def _finish(self, row: CycleRow) -> CycleRow:
        context, outcome = self._context, row.state
        context.releases.prune(keep=[ensure_factory(context, self._supervisor).id])
        row = self._journal.update(row, state=FINISHED, outcome=outcome)
        self.tidy()
        return row


def _micro_batch(row: CycleRow, run: Path) -> int:
    """Return the micro-batch of a run's plan, or where it did not get as far, one that half of is 1."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return min(map(int, json.loads((run / "run.json").read_bytes())["rows"].values()))
    return int(row.details.get("micro_batch_limit") or 2)


def _training_figures(row: CycleRow, end: ChildEnd) -> dict[str, Any]:
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


def _write_examples(path: Path, examples: Iterable[Example], known: set[str]) -> tuple[int, int]:
    with path.open("wb") as file:
        return _append_examples(file, examples, known)


def _append_examples(file: Any, examples: Iterable[Example], known: set[str]) -> tuple[int, int]:
    """Write examples as JSON lines; return how many were written and how many have labels not `known`."""
    used = unknown = 0
    for example in examples:
        if example.label not in known:
            unknown += 1
            continue
        record = {"text": example.text, "text_pair": example.text_pair, "label": example.label}
        line = json.dumps({k: v for k, v in record.items() if v is not None}, ensure_ascii=False)
        file.write(line.encode("utf-8") + b"\n")
        used += 1
    return used, unknown
