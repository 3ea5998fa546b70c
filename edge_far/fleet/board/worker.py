"""The device's own hand in a round: takes an order from the desk, trains where it may, lays learners or a word down.

Runs in the device's environment, as the daemon's user, without a network. It is a cycle without a gate: the daemon's
lock keeps the two apart, the profile's conditions must hold, the trainer is the same child, watched the same way. It
never changes a release: what a fleet releases is offered to the daemon (daemon/intake/offers.py), whose gate decides.

Killed at any instruction the order still lies on the desk: the next worker goes on from the trainer's checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bundles.arrays import read_arrays, read_learners
from edge_far.bundles.bundle import open_bundle
from edge_far.console import Console
from edge_far.daemon.children.child_end import ChildEnd, Progress
from edge_far.daemon.children.supervisor import Supervisor, Wish
from edge_far.daemon.context import Context, Places, opened_context
from edge_far.daemon.intake.offers import put_offer
from edge_far.daemon.intake.requests import ask
from edge_far.daemon.report.status import conditions_now
from edge_far.daemon.state import CycleDirectory, StateDirectory
from edge_far.daemon.training.material import write_material
from edge_far.daemon.training.overseer import Overseer
from edge_far.daemon.training.trainer import run_trainer
from edge_far.errors import BundleError, Deferred, EdgeFarError, StorageError
from edge_far.fleet.desk import Desk, Ticket
from edge_far.fleet.exchange import Arrays, Form
from edge_far.fleet.terms import Answer, Order, Refused, other_bundle
from edge_far.process.failures import as_error
from edge_far.profile.document import load_profile
from edge_far.storage import staged_directory, write_json
from edge_far.tasks.figures import figures_of

__all__ = ["Worker"]

LEARNERS = "learners.safetensors"
LOCK_WAIT_S = 10.0  # a look that finds nothing to train is over by then
# The daemon's conditions by the words of the terms; that of new examples says nothing here.
WORDS = {
    "hours": "hours",
    "power": "power",
    "voltage": "voltage",
    "temperature": "temperature",
    "memory": "memory",
    "memory pressure": "memory",
    "memory limit": "memory",
    "disk": "disk",
}


class Worker:
    """One device's worker at one desk; `stop` says whether it was asked to end."""

    def __init__(self, places: Places, desk: Desk, console: Console, stop: Callable[[], bool]) -> None:
        self._places, self._desk, self._console, self._stop = places, desk, console, stop

    def check(self) -> None:
        """Raise what is wrong with profile (78), bundle (66, 65) or state (74), after declining what waits."""
        try:
            open_bundle(self._places.bundle, load_profile(self._places.profile).security)
            state = StateDirectory(self._places.state)
            state.prepare()
            state.give_to_owner()
        except (EdgeFarError, OSError) as error:
            ticket = self._desk.waiting()
            if ticket is not None:  # else the server waits for nothing, and the path unit starts us again and again
                self._desk.lay_answer(ticket.id, self._declined("failed", str(as_error(error, ["fleet"]))), {})
            raise

    def look(self) -> Answer | None:
        """Do what lies on the desk; None where nothing does. Raises StorageError (74) where no answer can be given.

        Asked to stop in the midst of it, it leaves the order for the next worker and raises Deferred (75).
        """
        ticket = self._desk.waiting()
        if ticket is None:
            return None
        began_s = time.monotonic()
        learners: Arrays = {}
        try:
            answer, learners = self._done(ticket, began_s)
        except Refused as refusal:
            answer = self._declined(refusal.word, str(refusal))
        except (Deferred, StorageError):
            raise
        except Exception as error:  # whatever it is, the server need not wait for it, and the next order comes
            answer = self._declined("failed", str(as_error(error, ["fleet"])))
        self._desk.lay_answer(ticket.id, answer, learners)
        return answer

    def _declined(self, word: str, why: str) -> Answer:
        """Return the word that leaves the device, and tell the sentence here."""
        self._console.info(f"declined ({word}): {why}")
        return Answer.declined(word)

    def _done(self, ticket: Ticket, began_s: float) -> tuple[Answer, Arrays]:
        order = ticket.order
        try:
            with opened_context(self._places, self._console, lock_wait_s=LOCK_WAIT_S) as (context, lock):
                context.stop = self._stop
                round_ = _Round(context, Supervisor(context.notifier, descriptors=[lock]), ticket, began_s)
                if order.bundle != context.bundle.fingerprint:
                    raise Refused("bundle", other_bundle(context.bundle.fingerprint, order.bundle))
                if context.new_labels.names() != context.bundle.manifest.labels:
                    raise Refused("labels", "its outputs mean something else than the fleet's")
                return round_.train(self._desk) if order.kind == "train" else round_.offer(self._desk)
        except Deferred as error:
            if self._stop():
                raise
            raise Refused("busy", str(error)) from error


class _Round:
    """One order under the daemon's lock; its files lie in STATE/round until it is answered."""

    def __init__(self, context: Context, supervisor: Supervisor, ticket: Ticket, began_s: float) -> None:
        self._context, self._supervisor, self._ticket, self._began_s = context, supervisor, ticket, began_s
        self._files = CycleDirectory(context.state.round)

    @property
    def _order(self) -> Order:
        return self._ticket.order

    @property
    def _received(self) -> Path:
        return self._files.root / "received.safetensors"

    def train(self, desk: Desk) -> tuple[Answer, Arrays]:
        """Train on the device's examples and return what came of it; raises Refused with the word to decline with."""
        self._refuse_bad_conditions()
        counts = self._collect(desk)
        run = self._files.run(1)
        if not (run / "result.json").is_file():
            end = self._run_trainer(run, measured=bool(counts["held_out.jsonl"]))
            if end.stopped is not None and end.status != 0:
                if self._context.stop():
                    raise Deferred(f"stopped at step {end.progress.step}; the next worker goes on from there")
                raise Refused("time" if "wait" in end.stopped else "paused", end.stopped)
            if end.status != 0:
                raise Refused("failed", end.describe())
        answer = Answer("trained", "", self._figures(run, counts))
        learners = read_learners(run / LEARNERS)
        shutil.rmtree(self._files.root, ignore_errors=True)
        return answer, learners

    def offer(self, desk: Desk) -> tuple[Answer, Arrays]:
        """Offer what the fleet releases to the daemon, and ask it to look; its gate decides."""
        context = self._context
        with staged_directory(self._files.root, replace=True) as staging:
            self._take(desk, staging / self._received.name)
        put_offer(context.state.offer, self._received, bundle=self._order.bundle, rounds=self._order.round)
        shutil.rmtree(self._files.root, ignore_errors=True)
        with suppress(EdgeFarError):  # the daemon's next look comes by itself
            ask(context.spool)
        return Answer("offered", "", {}), {}

    # --- before ---------------------------------------------------------------------------------------------------

    def _refuse_bad_conditions(self) -> None:
        context = self._context
        readings = context.sensors.read()
        for condition in conditions_now(
            context.profile, readings, context.store, context.journal, context.local_time()
        ):
            if not condition.ok and condition.name in WORDS:
                raise Refused(WORDS[condition.name], condition.text)

    def _collect(self, desk: Desk) -> dict[str, int]:
        """Write down what this order trains on, once: a worker after a power cut finds the same."""
        note = self._files.root / "order.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(note.read_bytes())
            if known["id"] == self._ticket.id and self._received.is_file():
                return {name: int(count) for name, count in known["counts"].items()}
        context = self._context
        try:
            counts = write_material(context, context.store.highest_change(), self._files.root)
        except Deferred as error:
            raise Refused("examples", str(error)) from error
        self._take(desk, self._received)
        write_json(note, {"id": self._ticket.id, "counts": counts})
        return counts

    def _take(self, desk: Desk, received: Path) -> None:
        """Copy the order's learners, checked against the bundle's own."""
        if not desk.take(self._ticket, received):
            raise Refused("order", "it was taken back")
        form = Form.of(read_learners(self._context.bundle.path(LEARNERS)))
        try:
            form.check(read_arrays(received), "the server")
        except BundleError as error:
            raise Refused("order", str(error)) from error

    # --- the trainer ----------------------------------------------------------------------------------------------

    def _run_trainer(self, run: Path, *, measured: bool) -> ChildEnd:
        context, order = self._context, self._order
        overseer = Overseer(context)

        def wish(progress: Progress) -> Wish:
            if time.monotonic() - self._began_s > order.wait_s:
                return Wish("stop", "the server does not wait longer")
            return overseer(progress)

        more: list[str | Path] = ["--seed", str(order.seed)]
        if order.proximal_mu:
            more += ["--proximal-mu", repr(order.proximal_mu)]
        if measured:
            more += ["--eval", self._files.held_out]
        return run_trainer(
            context,
            self._supervisor,
            self._files,
            run,
            learners=self._received,
            epochs=order.epochs,
            learning_rate=context.bundle.manifest.defaults.learning_rate * order.learning_rate_percent / 100,
            more=more,
            wish=wish,
        )

    def _figures(self, run: Path, counts: dict[str, int]) -> dict[str, float]:
        """Return what the device tells of the round: counts, one score, seconds and MiB."""
        result: dict[str, Any] = json.loads((run / "result.json").read_bytes())
        left_out = len(json.loads(self._files.left_out.read_bytes())) if self._files.left_out.is_file() else 0
        figures = {
            "examples": max(1, counts["train.jsonl"] + counts.get("replay", 0) - left_out),
            "held_out_examples": counts["held_out.jsonl"],
            "final_loss": result.get("final_loss"),
            "seconds": result.get("seconds"),
            "peak_rss_mib": result.get("peak_rss_mib"),
            "held_out_score": next(iter(figures_of(result["eval"] or {}).values()), None),
        }
        return {name: float(value) for name, value in figures.items() if value is not None and np.isfinite(value)}
