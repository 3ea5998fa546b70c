"""Which rows of the store have to go: too old, too many, too large; what arrived first goes first.

Refuses to know why a limit was chosen. Ages are measured on the store's clock, which a wrong system clock
cannot push far.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_far.daemon.store.database import Database

__all__ = ["Retention", "remove_example", "remove_examples", "remove_predictions", "remove_quarantined"]

DAY_S = 86400.0
MIB = 1 << 20
QUARANTINE_LINES = 10_000
QUARANTINE_BYTES = 16 * MIB


@dataclass(frozen=True)
class Retention:
    """How much is kept of examples, and of predictions; None means no limit."""

    max_age_days: float | None = 365.0
    max_examples: int | None = 100_000
    max_mib: float | None = 64.0


def remove_examples(database: Database, limits: Retention, now_s: float) -> int:
    """Remove examples beyond the limits, the earliest change first; return how many."""
    return _remove(database, "examples", "change DESC", limits, now_s)


def remove_example(database: Database, key: bytes) -> tuple[str, int] | None:
    """Remove the example named `key`, also from the host's samples; return file and line it came from, if it did."""
    found = database.row("SELECT file, line FROM examples WHERE key = ?", (key,))
    database.run("DELETE FROM examples WHERE key = ?", (key,))
    database.run("DELETE FROM replay WHERE key = ?", (key,))
    return None if found is None else (str(found[0]), int(found[1]))


def remove_predictions(database: Database, limits: Retention, now_s: float) -> int:
    """Remove predictions without feedback beyond the same limits; return how many."""
    return _remove(database, "predictions", "received_s DESC, id", limits, now_s)


def remove_quarantined(database: Database) -> int:
    """Remove the oldest quarantined lines beyond QUARANTINE_LINES and QUARANTINE_BYTES; return how many."""
    return database.run(
        "DELETE FROM quarantine WHERE id IN (SELECT id FROM (SELECT id,"
        " row_number() OVER (ORDER BY id DESC) AS place,"
        " sum(length(excerpt)) OVER (ORDER BY id DESC) AS total FROM quarantine)"
        " WHERE place > ? OR total > ?)",
        (QUARANTINE_LINES, QUARANTINE_BYTES),
    )


def _remove(database: Database, table: str, newest_first: str, limits: Retention, now_s: float) -> int:
    removed = 0
    if limits.max_age_days is not None:
        oldest = now_s - limits.max_age_days * DAY_S
        removed += database.run(f"DELETE FROM {table} WHERE received_s < ?", (oldest,))
    if limits.max_examples is not None:
        removed += database.run(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table} ORDER BY {newest_first} LIMIT -1 OFFSET ?)",
            (limits.max_examples,),
        )
    if limits.max_mib is not None:
        removed += database.run(
            f"DELETE FROM {table} WHERE id IN (SELECT id FROM"
            f" (SELECT id, sum(bytes) OVER (ORDER BY {newest_first}) AS total FROM {table}) WHERE total > ?)",
            (int(limits.max_mib * MIB),),
        )
    return removed
