"""The cycles of this device, one row each: a change of a row is one transaction. Refuses to know what states mean."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_far.daemon.store.examples import Store

__all__ = ["CONSUMING", "FINISHED", "CycleRow", "Journal"]

FINISHED = "finished"
# After these the same examples do not start another cycle.
CONSUMING = ("released", "rejected", "failed")
CYCLE_COLUMNS = "id, state, attempt, change, base_release, candidate_release, outcome, details, started_s, updated_s"


@dataclass(frozen=True)
class CycleRow:
    """One cycle; `change` is the highest of its examples, `details` is JSON-able, times are the store's clock."""

    id: int
    state: str
    attempt: int
    change: int
    base: str
    candidate: str | None
    outcome: str | None
    details: Mapping[str, Any]
    started_s: float
    updated_s: float


class Journal:
    """The table `cycles` of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database

    def start(self, state: str, *, change: int, base: str, details: Mapping[str, Any]) -> CycleRow:
        """Add a cycle."""
        now = self._store.now_s()
        with self._store.transaction():
            self._database.run(
                "INSERT INTO cycles (state, change, base_release, details, started_s, updated_s)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (state, change, base, json.dumps(dict(details)), now, now),
            )
        return self.last(1)[0]

    def update(
        self,
        row: CycleRow,
        *,
        state: str | None = None,
        attempt: int | None = None,
        candidate: str | None = None,
        outcome: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> CycleRow:
        """Change what is given; `details` are merged into the ones there."""
        changed = dataclasses.replace(
            row,
            state=state or row.state,
            attempt=attempt or row.attempt,
            candidate=candidate or row.candidate,
            outcome=outcome or row.outcome,
            details={**row.details, **(details or {})},
            updated_s=self._store.now_s(),
        )
        with self._store.transaction():
            self._database.run(
                "UPDATE cycles SET state = ?, attempt = ?, candidate_release = ?, outcome = ?, details = ?,"
                " updated_s = ? WHERE id = ?",
                (
                    changed.state,
                    changed.attempt,
                    changed.candidate,
                    changed.outcome,
                    json.dumps(dict(changed.details)),
                    changed.updated_s,
                    row.id,
                ),
            )
        return changed

    def under_way(self) -> CycleRow | None:
        """Return the cycle that is not finished, or None."""
        found = self._rows("WHERE state != ? ORDER BY id DESC LIMIT 1", FINISHED)
        return found[0] if found else None

    def last(self, count: int) -> list[CycleRow]:
        """Return the newest cycles, the newest first."""
        return self._rows("ORDER BY id DESC LIMIT ?", count)

    def consumed_change(self) -> int:
        """Return the highest change that a finished cycle has dealt with; examples above it are new."""
        marks = ", ".join("?" * len(CONSUMING))
        query = f"SELECT max(change) FROM cycles WHERE state = ? AND outcome IN ({marks})"
        found = self._database.row(query, (FINISHED, *CONSUMING))
        return int(found[0]) if found and found[0] is not None else 0

    def outcomes(self) -> dict[str, int]:
        """Return how many cycles ended how."""
        query = "SELECT outcome, count(*) FROM cycles WHERE outcome IS NOT NULL GROUP BY outcome"
        return {str(outcome): int(count) for outcome, count in self._database.rows(query)}

    def _rows(self, condition: str, *values: object) -> list[CycleRow]:
        rows = self._database.rows(f"SELECT {CYCLE_COLUMNS} FROM cycles {condition}", values)
        return [
            CycleRow(
                id=id,
                state=state,
                attempt=attempt,
                change=change,
                base=base,
                candidate=candidate,
                outcome=outcome,
                details=_details(details),
                started_s=started,
                updated_s=updated,
            )
            for id, state, attempt, change, base, candidate, outcome, details, started, updated in rows
        ]


def _details(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
