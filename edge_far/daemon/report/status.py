"""How the device is: one finding, why, since when, and what to do about it. Refuses to know how to repair.

`build` makes the JSON document from what is on disk and what the sensors say; its words are status_text.py's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from edge_far.daemon.new_labels import NewLabels
from edge_far.daemon.notes import Note, Notes
from edge_far.daemon.release_files import Release, ReleaseDamaged
from edge_far.daemon.releases import Releases
from edge_far.daemon.report import status_text
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import CycleRow, Journal
from edge_far.daemon.training.conditions import Condition, start_conditions
from edge_far.daemon.training.interruptions import Interruptions
from edge_far.device.board.sensors import Readings
from edge_far.errors import EdgeFarError, InputMissing
from edge_far.profile.document import Profile
from edge_far.tasks.figures import score_name

__all__ = ["build", "conditions_now"]

BROKEN = frozenset({"error"})


def conditions_now(
    profile: Profile, readings: Readings, store: Store, journal: Journal, local_time: time.struct_time
) -> list[Condition]:
    """Return the conditions for the next cycle; a cycle under way needs no new examples."""
    counts = store.counts(since_change=journal.consumed_change())
    last = next(iter(journal.last(1)), None)
    peak = (last.details.get("predicted_peak_mib") if last else None) or 0.0
    found = start_conditions(
        profile,
        readings,
        new_examples=counts.new_examples,
        held_out=counts.held_out,
        held_out_share=store.held_out_share,
        local_time=local_time,
        plan_peak_mib=float(peak),
    )
    if journal.under_way() is not None:
        return [condition for condition in found if condition.name not in ("new examples", "held-out examples")]
    return found


def build(
    state: StateDirectory,
    *,
    store: Store | None,
    releases: Releases | None,
    notes: Notes,
    profile: Profile | None,
    readings: Readings | None,
    settings: dict[str, Any],
    running: bool,
    working: bool,
    problems: Sequence[str] = (),
    verify: bool = True,
) -> dict[str, Any]:
    """Return the status document; `problems` are what kept the caller from opening something.

    `running`: there is a daemon, which may wait; `working`: somebody is at work under the lock. Without `verify` the
    current release is taken to be as good as its manifest.
    """
    broken = list(problems)
    journal = Journal(store) if store else None
    current, damage = _current(releases, verify)
    broken += [damage] if damage else []
    under_way = journal.under_way() if journal else None
    last = next((row for row in journal.last(50) if row.outcome), None) if journal else None
    counts = store.counts(since_change=journal.consumed_change()) if store and journal else None
    conditions: list[Condition] = []
    if profile and readings and store and journal:
        conditions = conditions_now(profile, readings, store, journal, time.localtime())
    told = notes.all()
    broken += [note.text for note in told if note.topic in BROKEN]
    document: dict[str, Any] = {
        "state": _state(broken, told, current, under_way, last, conditions, working),
        "checked_s": round(time.time()),
        "daemon": {"running": running, "settings": settings, "profile": profile.name if profile else None},
        "model": _model(current),
        "cycle_under_way": _cycle(under_way),
        "last_cycle": _cycle(last),
        "cycles": journal.outcomes() if journal else {},
        "examples": asdict(counts) if counts else None,
        "labels": NewLabels(store, settings["labels"]).document() if store and settings.get("labels") else None,
        "conditions": [asdict(condition) for condition in conditions],
        "broken": broken,
        "notes": [asdict(note) for note in told],
    }
    document["summary"] = status_text.summary(document)
    document["advice"] = status_text.advice(document)
    return document


def _current(releases: Releases | None, verify: bool) -> tuple[Release | None, str | None]:
    if releases is None:
        return None, None
    with suppress(ReleaseDamaged):
        if releases.current_id() is None and not releases.ids():
            return None, None
    try:
        id = releases.current_id()
        if id is None:
            return None, "no release is current"
        return releases.verify(id, hashes=verify), None
    except (ReleaseDamaged, InputMissing) as error:
        return None, f"the current release is not usable: {error}"
    except EdgeFarError as error:
        return None, str(error)


def _state(
    broken: Sequence[str],
    notes: Sequence[Note],
    current: Release | None,
    under_way: CycleRow | None,
    last: CycleRow | None,
    conditions: Sequence[Condition],
    working: bool,
) -> str:
    failing = {condition.name for condition in conditions if not condition.ok}
    if broken:
        return "broken"
    if working and under_way is not None:
        return "training"
    if under_way is not None or (failing and not failing & status_text.ARRIVAL):
        return "deferred"
    if any(note.topic in status_text.WORRYING for note in notes):
        return "attention"
    if current is None or last is None:
        return "fresh"
    return "healthy"


def _model(current: Release | None) -> dict[str, Any] | None:
    if current is None:
        return None
    held_out = current.facts.get("held_out") or {}
    base = current.facts.get("base") or {}
    return {
        "release": current.id,
        "kind": current.facts.get("kind"),
        "replaces": current.replaces,
        "made_s": current.created_s,
        "path": str(current.path),
        "held_out_accuracy": held_out.get("candidate_accuracy"),
        "held_out_accuracy_before": held_out.get("reference_accuracy"),
        "held_out_examples": held_out.get("examples"),
        "base_accuracy": base.get("candidate_accuracy"),
        "base_accuracy_factory": base.get("reference_accuracy"),
        "score": score_name(held_out),
        "held_out_score": _score(held_out, "candidate"),
        "held_out_score_before": _score(held_out, "reference"),
        "base_score": _score(base, "candidate"),
        "base_score_factory": _score(base, "reference"),
    }


def _score(comparison: dict[str, Any], model: str) -> float | None:
    """Return the figure by which the gate compared, of the 'candidate' or the 'reference'."""
    return comparison.get(f"{model}_{score_name(comparison)}")


def _cycle(row: CycleRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    details = row.details
    return {
        "id": row.id,
        "state": row.state,
        "outcome": row.outcome,
        "attempt": row.attempt,
        "base": row.base,
        "started_s": round(row.started_s),
        "updated_s": round(row.updated_s),
        "candidate": row.candidate,
        "reason": details.get("reason"),
        "examples": details.get("examples"),
        "step": details.get("step"),
        "steps": details.get("steps"),
        "training": details.get("training"),
        "paused_s": details.get("paused_s"),
        "deaths": details.get("deaths", []),
        "interruptions": _interruptions(Interruptions.of(details)),
        "decision": details.get("decision"),
        "health": details.get("health"),
    }


def _interruptions(found: Interruptions) -> dict[str, Any] | None:
    return {"count": found.count, "fruitless": found.fruitless, "text": found.describe()} if found.count else None
