"""One adaptation cycle as a state machine: each transition is safe to repeat, whenever the power failed.

    collected -> training -> trained -> decided -> released -> finished
                    |           |          |
                    failed      rejected   discarded    -> finished

docs/explain/adaptation.md has the table of what is on disk when a state is committed. Training is
training/phase.py's, what is asked before a release gate/questions.py's. Everything that needs NumPy or ONNX Runtime
runs in a child (children/supervisor.py). Read `advance` first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from edge_far import __version__
from edge_far.daemon.children.supervisor import Supervisor
from edge_far.daemon.context import Context
from edge_far.daemon.gate.questions import ask_application, comparison_arguments
from edge_far.daemon.intake.offers import Offer, copy_learners, withdraw_offer
from edge_far.daemon.intake.unreadable import quarantine_unreadable
from edge_far.daemon.new_labels import places_in
from edge_far.daemon.release_files import Release
from edge_far.daemon.store.backup import back_up
from edge_far.daemon.store.journal import FINISHED, CycleRow
from edge_far.daemon.training.candidate import LEARNERS, ChildFailed, ensure_factory, run_to_end
from edge_far.daemon.training.material import write_material
from edge_far.daemon.training.phase import TrainingPhase
from edge_far.disk.directory_moves import fsync_directory
from edge_far.errors import DataError, Deferred
from edge_far.storage import storage_error

__all__ = ["AdaptationCycle"]


class AdaptationCycle:
    """Starts a cycle, or takes up the one under way, and brings it to its end.

    `advance` raises Deferred (75) when training has to wait, StorageError (74), BudgetError (78), Unavailable
    (69); the row then stays where it is.
    """

    def __init__(self, context: Context, supervisor: Supervisor) -> None:
        self._context = context
        self._supervisor = supervisor
        self._journal = context.journal
        self._files = context.state.cycle
        training = TrainingPhase(context, supervisor)
        self._steps: dict[str, Callable[[CycleRow], CycleRow]] = {
            "collected": training.advance,
            "training": training.advance,
            "trained": self._decide,
            "decided": self._release,
            "released": self._finish,
            "rejected": self._finish,
            "failed": self._finish,
            "discarded": self._finish,
        }

    def collect(self, base: Release, offer: Offer | None = None) -> CycleRow:
        """Write down what this cycle trains and measures on, and start it; Deferred when that is nothing.

        Labels that have enough examples take their places before. With an `offer` of a fleet nothing trains: the gate
        judges it, and the examples that are new stay so.
        """
        context = self._context
        if context.new_labels.allowed and offer is None:
            with context.store.transaction():
                needed = context.profile.adaptation.new_label_examples
                context.new_labels.take(needed, places_in(base.path, context.bundle.manifest.labels))
        change = self._context.store.highest_change()
        counts = write_material(self._context, change)
        if offer is not None:
            if not copy_learners(context.state.offer, offer, self._files.offered):
                raise Deferred("another offer of the fleet has just come")
            change = self._journal.consumed_change()
        asked, defaults = self._context.profile.adaptation, self._context.bundle.manifest.defaults
        details = {
            "version": __version__,
            "bundle": self._context.bundle.fingerprint,
            "epochs": asked.epochs or defaults.epochs,  # a profile loaded anew must not change a run under way
            "learning_rate": defaults.learning_rate * asked.learning_rate_percent / 100,
            "examples": counts,
            **({} if offer is None else {"offer": asdict(offer)}),
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
        if not self._files.train.is_file():
            return "its files are gone"
        if row.state == "trained" and not (self._files.candidate / LEARNERS).is_file():
            return "its candidate is gone"
        return None

    # --- gate and release ---------------------------------------------------------------------------------------

    def _decide(self, row: CycleRow) -> CycleRow:
        """Have the candidate compared, then ask the application; either may refuse it."""
        context = self._context
        context.notifier.status("comparing the candidate with the current release")
        measured = bool(row.details["examples"].get(self._files.base.name))
        factory = ensure_factory(context, self._supervisor).id if measured else None
        arguments = comparison_arguments(context, row.base, factory)
        run_to_end(context, self._supervisor, arguments, self._files.output("decide"))
        decision = json.loads(self._files.decision.read_bytes())
        self._quarantine(decision.pop("left_out"))
        details: dict[str, Any] = {"decision": decision}
        if not decision["accepted"]:
            return self._end(row, "rejected", "; ".join(decision["reasons"]), details)
        health = ask_application(context)
        if health is not None:
            details["health"] = health.text
            if not health.accepted:
                return self._end(row, "rejected", health.text, details)
        candidate = context.releases.next_id(self._files.candidate)
        return self._journal.update(row, state="decided", candidate=candidate, details=details)

    def _quarantine(self, left_out: dict[str, dict[str, str]]) -> None:
        """Put the held-out examples that the models could not read into quarantine."""
        quarantine_unreadable(self._context.store, left_out.get("device", {}), self._files.held_out)
        quarantine_unreadable(self._context.store, left_out.get("base", {}), self._files.base)

    def _release(self, row: CycleRow) -> CycleRow:
        """Publish the candidate and make it current, unless someone changed the current release meanwhile."""
        context, id = self._context, row.candidate or ""
        context.notifier.status(f"releasing {id}")
        current = context.releases.current_id()
        if current != id:
            if current != row.base:
                return self._end(row, "discarded", f"the current release is {current}, no longer {row.base}")
            context.releases.publish(id, self._files.candidate, replaces=row.base, facts=_facts(row))
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
        if self._journal.under_way() is not None or not self._files.root.exists():
            return
        back_up(self._context.store, self._context.state.store, self._context.spool)
        try:
            shutil.rmtree(self._files.root)
            fsync_directory(self._files.root.parent)
        except OSError as error:
            raise storage_error(error, self._files.root) from error

    def _finish(self, row: CycleRow) -> CycleRow:
        context, outcome = self._context, row.state
        context.releases.prune(keep=[ensure_factory(context, self._supervisor).id])
        if (offer := row.details.get("offer")) and outcome != "discarded":
            withdraw_offer(context.state.offer, offer["sha256"])
        row = self._journal.update(row, state=FINISHED, outcome=outcome)
        self.tidy()
        return row


def _facts(row: CycleRow) -> dict[str, Any]:
    """Return what the manifest of a cycle's release says of its origin."""
    decision, offer = row.details["decision"], row.details.get("offer")
    return {
        "kind": "fleet" if offer else "adapted",
        **({"rounds": offer["rounds"]} if offer else {}),
        "bundle": row.details["bundle"],
        "cycle": row.id,
        "examples": row.details["examples"],
        "change": row.change,
        "held_out": decision["device"],
        "base": decision["base"],
    }
