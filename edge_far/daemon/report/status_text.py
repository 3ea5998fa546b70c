"""The words of `edge-far status`: one finding, the facts behind it, and what to do. Knows only the status document.

`summary` and `advice` become part of the document; `render` makes the note for people from the whole of it.
"""

from __future__ import annotations

import textwrap
from typing import Any

from edge_far.quoting import shown
from edge_far.tasks.figures import FIGURES

__all__ = ["ARRIVAL", "WORRYING", "advice", "render", "summary"]

WORRYING = frozenset({"release", "store", "data", "profile"})
ARRIVAL = frozenset({"new examples", "held-out examples"})
BELIEVED = frozenset({"power"})  # told even where no sensor is: what is assumed decides whether training runs
WIDTH = 110
MANY_INTERRUPTIONS = 3
LOOK = "'systemctl start edge-far', or 'edge-far daemon --once'"
# What a person can do about a condition that will not pass by itself.
REMEDIES = {
    "voltage": "use a stronger power supply, or a shorter cable",
    "memory limit": "lower memory.budget_mib in the profile, or raise MemoryMax= ('systemctl edit edge-far')",
    "disk": "free some disk space",
}


def summary(document: dict[str, Any]) -> str:
    """Return the one finding."""
    model, under_way = document["model"], document["cycle_under_way"]
    uses = _uses(model)
    failing = [c for c in document["conditions"] if not c["ok"]]
    reasons = [c["text"] for c in failing if not under_way or c["name"] not in ARRIVAL]
    reasons += [note["text"] for note in document["notes"] if note["topic"] == "waiting"]
    if document["state"] == "broken":
        return f"Broken: {document['broken'][0]}."
    if document["state"] == "training":
        return f"At work on cycle {under_way['id']} ({under_way['state']}); {uses}."
    if document["state"] == "deferred":
        what = f"cycle {under_way['id']} waits" if under_way else "ready to train, but it has to wait"
        return f"Deferred: {what}{': ' + '; '.join(reasons) if reasons else ' for the next start'}."
    if document["state"] == "attention":
        note = next(note for note in document["notes"] if note["topic"] in WORRYING)
        return f"Works, but look at this: {note['text']}."
    waits = "; ".join(reasons)
    if document["state"] == "fresh":
        return f"Fresh: no cycle has ended yet; {uses}.{f' The first cycle waits: {waits}.' if waits else ''}"
    return f"Healthy: {uses}.{f' The next cycle waits: {waits}.' if waits else ''}"


def advice(document: dict[str, Any]) -> list[str]:
    """Return what a person can do, the most urgent first."""
    found = [note["advice"] for note in document["notes"] if note["advice"]]
    if any("current release is not usable" in text or "no release is current" in text for text in document["broken"]):
        found.append(f"{LOOK}: it goes back to the last good release")
    if any("the database is damaged" in text for text in document["broken"]):
        found.append(f"{LOOK}: it sets the damaged file aside and recovers the examples that can be read")
    found += [REMEDIES[c["name"]] for c in document["conditions"] if not c["ok"] and c["name"] in REMEDIES]
    interruptions = (document["cycle_under_way"] or {}).get("interruptions") or {}
    if interruptions.get("fruitless", 0) >= MANY_INTERRUPTIONS:
        found.append("the power fails or something ends the daemon again and again: look at the supply and the journal")
    examples = document["examples"] or {}
    if examples.get("set_aside"):
        found.append("'edge-far store bring-back' puts the examples that were set aside back into use")
    if examples.get("quarantined"):
        found.append("'edge-far store quarantine' shows the lines that could not be used, and why")
    if not document["daemon"]["running"] and not document["daemon"]["settings"] and not document["notes"]:
        found.append(f"{LOOK}: the daemon has not run here yet")
    if document["state"] == "deferred" and not found:
        found.append("nothing; the next look decides anew")
    return list(dict.fromkeys(found))


def render(document: dict[str, Any]) -> str:
    """Return the note for people."""
    now = document["checked_s"]
    lines = _wrapped(document["summary"], "")
    facts = _facts(document, now)
    lines += [""] if facts else []
    for name, text in facts:
        lines += _wrapped(text, f"{name:<11}")
    if document["conditions"]:
        lines += ["", "Before the next cycle:" if not document["cycle_under_way"] else "To go on:"]
        lines += _condition_lines(document["conditions"])
    # The note that the summary quotes is told again only where its age says something.
    told = [
        f"{note['text']} ({_ago(now - note['since_s'])})"
        for note in document["notes"]
        if note["text"] not in document["summary"] or now - note["since_s"] >= 90
    ]
    for title, entries in (("Notes:", told), ("What to do:", document["advice"])):
        if entries:
            lines += ["", title]
            for entry in entries:
                lines += _wrapped(entry, "  ")
    return "\n".join(lines)


def _uses(model: dict[str, Any] | None) -> str:
    if model is None:
        return "there is no release yet"
    factory = ", the factory model" if model["kind"] == "factory" else ""
    return f"the application uses release {model['release']}{factory}"


def _condition_lines(conditions: list[dict[str, Any]]) -> list[str]:
    """Return a line for each condition that waits, was measured or is a belief, and one for all the others."""
    silent = [c["name"] for c in conditions if c["ok"] and c["measured"] is None and c["name"] not in BELIEVED]
    lines = []
    for c in conditions:
        if c["name"] not in silent:
            lines += _wrapped(c["text"], f"  {'ok  ' if c['ok'] else 'WAIT'} {c['name']:<19}")
    if silent:
        lines += _wrapped(", ".join(silent), f"  ok   {'no limit or sensor':<19}")
    return lines


def _facts(document: dict[str, Any], now: float) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    model, examples = document["model"], document["examples"]
    if model:
        text = f"{model['release']}, made {_ago(now - model['made_s'])}"
        if model["kind"] == "factory":
            text += ", as it came from the factory"
        elif model["held_out_score"] is not None:
            current, before = (_score(model, f"held_out_score{which}") for which in ("", "_before"))
            text += f"; {current} on {model['held_out_examples']} held-out examples, {before} before"
        facts.append(("Model", text))
        if model["base_score"] is not None:
            current, factory = (_score(model, f"base_score{which}") for which in ("", "_factory"))
            facts.append(("", f"{current} on the host's samples, {factory} with the factory's"))
    if examples:
        text = f"{examples['examples']} ({examples['held_out']} held out), {examples['new_examples']} new"
        for count, name in (
            (examples["set_aside"], "set aside"),
            (examples["quarantined"], "lines in quarantine"),
            (examples["predictions"], "predictions without a label"),
        ):
            text += f"; {count} {name}" if count else ""
        facts.append(("Examples", text))
    if labels := document["labels"]:
        text = f"{len(labels['taken'])} learnt here, {labels['free']} of {labels['places']} places free"
        text += "".join(f"; {shown(each['label'])} waits ({each['examples']})" for each in labels["waiting"][:3])
        facts.append(("Labels", text))
    for name, cycle in (("Under way", document["cycle_under_way"]), ("Last cycle", document["last_cycle"])):
        if cycle:
            facts.append((name, _cycle_text(cycle, now)))
            if training := cycle["training"]:
                text = f"{training['steps']} steps in {_duration(training['seconds'])}, "
                text += f"peak {training['peak_rss_mib']:.0f} of {training['budget_mib']:.0f} MiB"
                facts.append(("", text))
    return facts


def _score(model: dict[str, Any], key: str) -> str:
    """Return the gate's figure of a model; how it is called once for the two that are compared."""
    figure, value = FIGURES[model["score"]], model[key]
    shown = f"{value:.1%}" if figure.format.endswith("%") else figure.shown(value)
    if key.endswith(("_before", "_factory")):
        return shown
    return f"{shown} right" if model["score"] == "accuracy" else f"{figure.title} {shown}"


def _cycle_text(cycle: dict[str, Any], now: float) -> str:
    text = f"{cycle['id']}, {cycle['outcome'] or cycle['state']} {_ago(now - cycle['updated_s'])}"
    if cycle["outcome"] is None and cycle["steps"]:
        text += f", step {cycle['step'] or 0} of {cycle['steps']}"
    if cycle["attempt"] > 1:
        text += f", attempt {cycle['attempt']}"
    if cycle["interruptions"]:
        text += f", {cycle['interruptions']['text']}"
    if cycle["reason"]:
        text += f": {cycle['reason']}"
    if cycle["attempt"] > 1 and cycle["deaths"] and cycle["outcome"] != "failed":  # a failure's reason names them
        text += f"; {'; '.join(cycle['deaths'])}"
    return text


def _wrapped(text: str, start: str) -> list[str]:
    """Return the text after `start`, further lines indented like it; long names are never broken."""
    further = " " * len(start)
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=further, break_long_words=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _ago(seconds: float) -> str:
    if seconds < 90:
        return "just now"
    for size, name in ((86400 * 2, "days"), (3600 * 2, "hours"), (60, "minutes")):
        if seconds >= size:
            unit = {"days": 86400, "hours": 3600, "minutes": 60}[name]
            return f"{seconds / unit:.0f} {name} ago"
    return "just now"
