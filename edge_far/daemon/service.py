"""The daemon: a look opens everything and ticks; one tick ingests, looks at the conditions, runs a cycle to its end.

A daemon that looks by itself (`keep_looking`) does what the timer's does, again and again. In between it holds neither
the lock nor the store: a fleet's round may train then. Signals only set a flag here: SIGTERM and Ctrl-C end the tick at
the next safe place, SIGHUP loads the profile anew in a look of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.console import Console
from edge_far.daemon.children.supervisor import Supervisor
from edge_far.daemon.context import Context, Places, opened_context
from edge_far.daemon.cycle import AdaptationCycle
from edge_far.daemon.intake.host_samples import HostSamples
from edge_far.daemon.intake.ingest import Ingestion, IngestReport
from edge_far.daemon.intake.offers import waiting_offer
from edge_far.daemon.intake.requests import Requests
from edge_far.daemon.release_files import Release
from edge_far.daemon.report import status
from edge_far.daemon.report.measures import metrics_of
from edge_far.daemon.report.metrics import write_metrics
from edge_far.daemon.state import LOCK_WAIT_S, StateDirectory
from edge_far.daemon.store.backup import back_up, is_due
from edge_far.daemon.store.journal import CycleRow
from edge_far.daemon.store.retention import Retention
from edge_far.daemon.training.candidate import ensure_factory
from edge_far.daemon.training.conditions import Condition
from edge_far.device.board.sensors import Readings
from edge_far.errors import Deferred, EdgeFarError, StorageError
from edge_far.process.failures import as_error
from edge_far.process.termination import Signals
from edge_far.profile.document import load_profile
from edge_far.storage import write_json

__all__ = ["Outcome", "Service", "ServiceSettings", "keep_looking", "running_service"]

STATUS_MODE = 0o644
REQUEST_S = 2.0  # how often a daemon that sleeps looks whether somebody asks for a cycle, or still works here


@dataclass(frozen=True)
class ServiceSettings:
    """What the command line says; `replay` and `base` are files of the host's samples, or None."""

    places: Places
    replay: Path | None = None
    base: Path | None = None
    stall_s: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What one tick came to; `deferred` says why no cycle ended."""

    ingested: IngestReport
    cycle: CycleRow | None
    deferred: str | None


class Service:
    """One look of a device's daemon, opened by `running_service`; `before` is that daemon's look before it."""

    def __init__(
        self,
        context: Context,
        supervisor: Supervisor,
        settings: ServiceSettings,
        signals: Signals,
        console: Console,
        before: Service | None = None,
    ) -> None:
        self.context = context
        self._supervisor = supervisor
        self._settings = settings
        self._signals = signals
        self._console = console
        self._cycle = AdaptationCycle(context, supervisor)
        self._host_samples: HostSamples = (
            before._host_samples if before else HostSamples(settings.replay, settings.base)
        )
        self._requests: Requests = before._requests if before else Requests(context.spool, context.state.answer)
        context.stop = lambda: signals.stop
        context.tick = self._reload_if_asked
        context.changed = self.report

    def tick(self) -> Outcome:
        """Ingest, then finish the cycle under way or start one where the conditions allow."""
        context = self.context
        self._requests.take()
        self._reload_if_asked()
        self._cycle.tidy()
        ingested = self._ingest()
        self._host_samples.load(context)
        current = self._checked_release()
        row = context.journal.under_way()
        offer = waiting_offer(context)  # needs no new examples, for nothing trains
        waits = [c.text for c in self._conditions() if not c.ok and not (offer and c.name == "new examples")]
        if row is None or row.state in ("collected", "training"):
            if waits:
                return self._deferred(ingested, "; ".join(waits))
            if current.facts.get("bundle") != context.bundle.fingerprint:
                reason = f"release {current.id} does not belong to the installed bundle"
                return self._deferred(ingested, reason, told=True)
        try:
            row = row or self._cycle.collect(current, offer)
            self._requests.answer(cycle=row.id)
            row = self._cycle.advance(row)
        except Deferred as error:
            return self._deferred(ingested, str(error), told=not self._signals.stop)
        context.notes.tell("waiting", None)
        self._told_end(row)
        return Outcome(ingested, row, None)

    def look(self) -> None:
        """Tick; one that fails is told, and the next one tries again."""
        try:
            self.tick()
            self.succeeded()
        except Exception as error:
            self.failed(as_error(error, ["daemon"]))

    def rest(self, seconds: float) -> None:
        """Wait, without lock and store, until it is time, a signal comes, or somebody asks for a look."""
        notifier, ends = self.context.notifier, time.monotonic() + seconds
        while not (self._signals.stop or self._signals.reload or self._requests.waiting):
            left = ends - time.monotonic()
            if left <= 0:
                return
            notifier.ping()
            self._signals.sleep(min(left, REQUEST_S, notifier.watchdog_s / 3 if notifier.watchdog_s else left))

    def cannot_look(self, reason: EdgeFarError) -> None:
        """Tell that there is no look now, without lock and store."""
        self._requests.take()
        self._requests.answer(deferred=str(reason))
        self.context.notifier.ping()
        self.context.notifier.status(f"deferred: {reason}")

    def succeeded(self) -> None:
        """Note that the last look failed in nothing."""
        self.context.notes.tell("error", None)

    def failed(self, error: EdgeFarError) -> None:
        """Note a failure for `status`."""
        self._console.warn(str(error))
        self.context.notes.tell_error(error)
        self._requests.answer(deferred=str(error))

    def report(self, *, working: bool = True) -> None:
        """Write status.json and the metrics; what cannot be written now is written the next time."""
        context = self.context
        readings = context.sensors.read()
        document = status.build(
            context.state,
            store=context.store,
            releases=context.releases,
            notes=context.notes,
            profile=context.profile,
            readings=readings,
            settings=self._settings_document(readings),
            running=True,
            working=working,
            verify=False,
        )
        with suppress(StorageError):
            write_json(context.state.status, document)
            with suppress(OSError):
                context.state.status.chmod(STATUS_MODE)
            write_metrics(context.state.metrics, metrics_of(document, context.profile, readings))

    def _settings_document(self, readings: Readings) -> dict[str, Any]:
        """Return what `status` needs to look by itself."""
        settings = self._settings
        return {
            "profile": settings.places.profile,
            "bundle": str(settings.places.bundle.absolute()),
            "spool": str(self.context.spool.absolute()),
            "labels": self.context.bundle.manifest.labels if self.context.new_labels.allowed else [],
            "pid": os.getpid(),
            "memory_limit_mib": readings.cgroup_limit_mib,
        }

    def _ingest(self) -> IngestReport:
        context = self.context
        context.notifier.status("reading the spool")
        report = Ingestion(context.spool, context.store, labels=context.labels, tick=self._stop_if_asked).run()
        if report.files:
            self._console.info(
                f"spool: {report.files} files, {report.new} new, {report.corrected} corrected, "
                f"{report.duplicates} known, {report.quarantined} in quarantine"
            )
        context.notes.tell("spool", "; ".join(report.problems) or None, "look into the spool directory")
        asked = context.profile.adaptation
        removed = context.store.enforce(Retention(asked.retention_days, asked.retention_examples, asked.retention_mib))
        if is_due(context.spool):
            back_up(context.store, context.state.store, context.spool)
        if removed:
            self._console.info(f"retention: {removed} of the oldest examples deleted")
        return report

    def _checked_release(self) -> Release:
        """Return the current release, verified; go back to a good one where it is damaged."""
        context = self.context
        ensure_factory(context, self._supervisor)
        release, note = context.releases.load_current()
        if note:
            self._console.warn(note)
            context.notes.tell("release", note, "look for a failing card; the next release ends this note")
        return release

    def _conditions(self) -> list[Condition]:
        context = self.context
        return status.conditions_now(
            context.profile, context.sensors.read(), context.store, context.journal, context.local_time()
        )

    def _deferred(self, ingested: IngestReport, reason: str, *, told: bool = False) -> Outcome:
        """End a look; `told` where `status` cannot see the reason by itself, as it can see the conditions."""
        self.context.notes.tell("waiting", reason if told else None)
        self._requests.answer(deferred=reason)
        self.context.notifier.status(f"deferred: {reason}")
        self._console.info(f"deferred: {reason}")
        return Outcome(ingested, None, reason)

    def _told_end(self, row: CycleRow) -> None:
        text = f"cycle {row.id} {row.outcome}: {row.details.get('reason', '')}"
        self.context.notifier.status(text)
        self._console.info(text)
        aside = row.details.get("set_aside")
        if aside:
            self.context.notes.tell("data", text, "look into them, then 'edge-far store bring-back'")
        elif row.outcome == "released":
            self.context.notes.tell("data", None)
            self.context.notes.tell("store", None)

    def _stop_if_asked(self) -> None:
        self._reload_if_asked()
        self.context.notifier.ping()
        if self._signals.stop:
            raise Deferred("asked to stop; the next start goes on from here")

    def _reload_if_asked(self) -> None:
        """Load the profile anew after SIGHUP; no sign of life, for it is called while the trainer may hang."""
        context = self.context
        if not self._signals.reload:
            return
        self._signals.reload = False
        context.notifier.reloading()
        try:
            context.profile = load_profile(context.profile_source)
            context.notes.tell("profile", None)
            text = f"profile {context.profile.name} loaded anew"
        except EdgeFarError as error:
            text = f"the profile was not loaded anew: {error}"
            context.notes.tell("profile", text, "correct it, then 'systemctl reload edge-far'")
        self._console.info(text)
        context.notifier.ready(text)


@contextmanager
def running_service(settings: ServiceSettings, signals: Signals, console: Console) -> Iterator[Service]:
    """Open state, store and bundle under the lock, and say READY; raises EdgeFarError, noted for `status`."""
    with _opened(settings, signals, console, None, LOCK_WAIT_S) as service:
        notifier = service.context.notifier
        notifier.ready("ready")
        try:
            yield service
        finally:
            notifier.stopping("stopping")


@contextmanager
def _opened(
    settings: ServiceSettings, signals: Signals, console: Console, before: Service | None, lock_wait_s: float
) -> Iterator[Service]:
    known = before.context if before else None
    with opened_context(settings.places, console, lock_wait_s=lock_wait_s, before=known) as (context, lock):
        supervisor = Supervisor(context.notifier, descriptors=[lock], stall_s=settings.stall_s)
        service = Service(context, supervisor, settings, signals, console, before)
        try:
            yield service
        finally:
            service.report(working=False)


def keep_looking(settings: ServiceSettings, signals: Signals, console: Console, interval_s: float) -> None:
    """Look until asked to stop; one look at a time, and in between the device is free for a fleet's round.

    Where somebody else is at work, the look that is due comes soon after. Raises EdgeFarError where the first look
    cannot open what it needs, Deferred (75) where another daemon looks here.
    """
    os.umask(0o077)
    state = StateDirectory(settings.places.state)
    state.prepare()
    service: Service | None = None
    with state.waiting():
        while not signals.stop:
            try:
                service = _looked(settings, signals, console, service)
            except Deferred as error:
                if service is not None:
                    service.cannot_look(error)
                signals.sleep(REQUEST_S)
                continue
            except EdgeFarError as error:
                if service is None:
                    raise
                service.failed(error)
            service.rest(interval_s)
    if service is not None:
        service.context.notifier.stopping("stopping")


def _looked(settings: ServiceSettings, signals: Signals, console: Console, before: Service | None) -> Service:
    """Look once; raises Deferred (75) where somebody else is at work, EdgeFarError where something does not open."""
    with _opened(settings, signals, console, before, 0.0) as service:
        if before is None:
            service.context.notifier.ready("ready")
        service.look()
    return service
