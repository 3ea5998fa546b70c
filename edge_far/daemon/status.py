"""How the device is: one finding, why, since when, and what to do about it. Refuses to know how to repair.

`build` makes the JSON document from what is on disk and what the sensors say; `render` makes the note for people
from that document alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from edge_far.daemon.conditions import Condition, start_conditions
from edge_far.daemon.interruptions import Interruptions
from edge_far.daemon.journal import CycleRow, Journal
from edge_far.daemon.notes import Note, Notes
from edge_far.daemon.releases import Release, ReleaseDamaged, Releases
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store import Store, StoreCounts
from edge_far.device.sensors import Readings
from edge_far.errors import EdgeFarError, InputMissing
from edge_far.profile import Profile

__all__ = ["build", "conditions_now", "render"]

MANY_INTERRUPTIONS = 3
BROKEN = frozenset({"error"})
WORRYING = frozenset({"release", "store", "data", "profile"})


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
    problems: Sequence[str] = (),
    verify: bool = True,
) -> dict[str, Any]:
    """Return the status document; `problems` are what kept the caller from opening something.

    Without `verify` the current release is taken to be as good as its manifest.
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
        "state": _state(broken, told, current, under_way, last, conditions, running),
        "since_s": None,
        "checked_s": round(time.time()),
        "daemon": {"running": running, "settings": settings, "profile": profile.name if profile else None},
        "model": _model(current),
        "cycle_under_way": _cycle(under_way),
        "last_cycle": _cycle(last),
        "cycles": journal.outcomes() if journal else {},
        "examples": asdict(counts) if counts else None,
        "conditions": [asdict(condition) for condition in conditions],
        "broken": broken,
        "notes": [asdict(note) for note in told],
    }
    document["summary"] = _summary(document)
    document["advice"] = _advice(document, counts)
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
    running: bool,
) -> str:
    failing = {condition.name for condition in conditions if not condition.ok}
    waiting = {"new examples", "held-out examples"}
    if broken:
        return "broken"
    if running and under_way is not None:
        return "training"
    if under_way is not None or (failing and not failing & waiting):
        return "deferred"
    if any(note.topic in WORRYING for note in notes):
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
    }


def _cycle(row: CycleRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    details = row.details
    return {
        **{"id": row.id, "state": row.state, "outcome": row.outcome, "attempt": row.attempt, "base": row.base},
        **{"started_s": round(row.started_s), "updated_s": round(row.updated_s)},
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


# --- words ------------------------------------------------------------------------------------------------------


def _summary(document: dict[str, Any]) -> str:
    model, under_way = document["model"], document["cycle_under_way"]
    uses = f"the application uses release {model['release']}" if model else "there is no release yet"
    failing = [c["text"] for c in document["conditions"] if not c["ok"]]
    if document["state"] == "broken":
        return f"Broken: {document['broken'][0]}."
    if document["state"] == "training":
        return f"At work on cycle {under_way['id']} ({under_way['state']}); {uses}."
    if document["state"] == "deferred":
        what = f"cycle {under_way['id']} waits" if under_way else "ready to train, but it has to wait"
        return f"Deferred: {what}{': ' + '; '.join(failing) if failing else ' for the next start'}."
    if document["state"] == "attention":
        note = next(note for note in document["notes"] if note["topic"] in WORRYING)
        return f"Works, but look at this: {note['text']}."
    if document["state"] == "fresh":
        return f"Fresh: no cycle has ended yet; {uses}."
    return f"Healthy: {uses}."


def _advice(document: dict[str, Any], counts: StoreCounts | None) -> list[str]:
    advice = [note["advice"] for note in document["notes"] if note["advice"]]
    if any("current release is not usable" in text or "no release is current" in text for text in document["broken"]):
        advice.append("run 'edge-far daemon --once': it goes back to the last good release")
    interruptions = (document["cycle_under_way"] or {}).get("interruptions") or {}
    if interruptions.get("fruitless", 0) >= MANY_INTERRUPTIONS:
        advice.append(
            "the power fails or something ends the daemon again and again: look at the supply and the journal"
        )
    if counts and counts.set_aside:
        advice.append("'edge-far store bring-back' puts the examples that were set aside back into use")
    if counts and counts.quarantined:
        advice.append("'edge-far store quarantine' shows the lines that could not be used, and why")
    if not document["daemon"]["running"] and not document["daemon"]["settings"]:
        advice.append("the daemon has not run here yet: 'systemctl start edge-far', or 'edge-far daemon --once'")
    return list(dict.fromkeys(advice))


def render(document: dict[str, Any]) -> str:
    """Return the note for people."""
    now = document["checked_s"]
    lines = [document["summary"], ""]
    lines += [f"{name:<11}{text}" for name, text in _facts(document, now)]
    if document["conditions"]:
        lines += ["", "Before the next cycle:" if not document["cycle_under_way"] else "To go on:"]
        lines += [f"  {'ok  ' if c['ok'] else 'WAIT'} {c['name']:<19}{c['text']}" for c in document["conditions"]]
    told = [f"  {note['text']} ({_ago(now - note['since_s'])})" for note in document["notes"]]
    if told:
        lines += ["", "Notes:", *told]
    if document["advice"]:
        lines += ["", "What to do:", *(f"  {text}" for text in document["advice"])]
    return "\n".join(lines)


def _facts(document: dict[str, Any], now: float) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    model, examples = document["model"], document["examples"]
    if model:
        text = f"{model['release']}, made {_ago(now - model['made_s'])}"
        if model["kind"] == "factory":
            text += ", as it came from the factory"
        elif model["held_out_accuracy"] is not None:
            text += (
                f"; {model['held_out_accuracy']:.1%} right on {model['held_out_examples']} held-out examples, "
                f"{model['held_out_accuracy_before']:.1%} before"
            )
        facts.append(("Model", text))
        if model["base_accuracy"] is not None:
            text = f"{model['base_accuracy']:.1%} right on the host's samples, {model['base_accuracy_factory']:.1%}"
            facts.append(("", f"{text} with the factory's"))
    if examples:
        text = f"{examples['examples']} ({examples['held_out']} held out), {examples['new_examples']} new"
        for count, name in (
            (examples["set_aside"], "set aside"),
            (examples["quarantined"], "lines in quarantine"),
            (examples["predictions"], "predictions without a label"),
        ):
            text += f"; {count} {name}" if count else ""
        facts.append(("Examples", text))
    for name, cycle in (("Under way", document["cycle_under_way"]), ("Last cycle", document["last_cycle"])):
        if cycle:
            facts.append((name, _cycle_text(cycle, now)))
    return facts


def _cycle_text(cycle: dict[str, Any], now: float) -> str:
    text = f"{cycle['id']}, {cycle['outcome'] or cycle['state']} {_ago(now - cycle['updated_s'])}"
    if cycle["reason"]:
        text += f": {cycle['reason']}"
    if cycle["outcome"] is None and cycle["steps"]:
        text += f", step {cycle['step'] or 0} of {cycle['steps']}"
    if cycle["attempt"] > 1:
        text += f", attempt {cycle['attempt']}"
    if cycle["interruptions"]:
        text += f", {cycle['interruptions']['text']}"
    if training := cycle["training"]:
        text += (
            f"; {training['steps']} steps in {training['seconds']:.0f} s, "
            f"peak {training['peak_rss_mib']:.0f} of {training['budget_mib']:.0f} MiB"
        )
    return text


def _ago(seconds: float) -> str:
    if seconds < 90:
        return "just now"
    for size, name in ((86400 * 2, "days"), (3600 * 2, "hours"), (60, "minutes")):
        if seconds >= size:
            unit = {"days": 86400, "hours": 3600, "minutes": 60}[name]
            return f"{seconds / unit:.0f} {name} ago"
    return "just now"
