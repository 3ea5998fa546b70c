"""What each cycle of a device came to: figures of the gate, release, reason. Refuses to know how they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_far.daemon.store.journal import CycleRow, Journal
from edge_far.tasks.figures import FIGURES, score_name

__all__ = ["MOST_NIGHTS", "nights"]

MOST_NIGHTS = 400
LARGEST = 1e15


def nights(journal: Journal) -> list[dict[str, Any]]:
    """Return the last cycles, the first first.

    Keys: `id, started_s, outcome` (null under way), `release, reason, examples` (held out, that were compared), `score`
    (the figure's name), `candidate, current` (their score on the device's held-out examples; null where nothing was
    compared), `base` (the candidate's on the base set, or null), `seconds, peak_mib` of training.
    """
    return [_night(row) for row in reversed(journal.last(MOST_NIGHTS))]


def _night(row: CycleRow) -> dict[str, Any]:
    decision, training = _object(row.details, "decision"), _object(row.details, "training")
    device, base = _object(decision, "device"), _object(decision, "base")
    score = score_name(device)
    candidate, current = _number(device, f"candidate_{score}"), _number(device, f"reference_{score}")
    compared = score in FIGURES and candidate is not None and current is not None
    reason = row.details.get("reason")
    return {
        "id": row.id,
        "started_s": row.started_s,
        "outcome": row.outcome,
        "release": row.candidate if row.outcome == "released" else None,
        "reason": None if reason is None else str(reason),
        "examples": _number(device, "examples") if compared else None,
        "score": score if score in FIGURES else "accuracy",
        "candidate": candidate if compared else None,
        "current": current if compared else None,
        "base": _number(base, f"candidate_{score_name(base)}") if score_name(base) == score else None,
        "seconds": _number(training, "seconds"),
        "peak_mib": _number(training, "peak_rss_mib"),
    }


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def _number(document: Mapping[str, Any], key: str) -> float | int | None:
    """Return a number that is one, and no larger than any of ours."""
    found = document.get(key)
    is_one = isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < LARGEST
    return found if is_one else None
