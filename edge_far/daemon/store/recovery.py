"""Reads what can still be read of a damaged database, row by row, without changing it.

Damage is usually local: a truncated end, some bad blocks of a card. Every example outside those is found, by
asking for ranges of rows and halving a range that fails.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

__all__ = ["readable_examples"]

EXAMPLE_COLUMNS = ("text", "text_pair", "label", "change", "corrections", "file", "line", "received_s", "set_aside")
HIGHEST_ID = 1 << 20
RANGE = 1 << 10
MAX_FAILURES = 50_000  # a few seconds


def readable_examples(path: Path) -> list[dict[str, Any]]:
    """Return the readable rows of `examples` by column name, the earliest change first; [] where none is."""
    for mode in ("mode=ro", "mode=ro&immutable=1"):  # the second does without the write-ahead log
        with suppress(sqlite3.Error):
            address = f"file:{quote(os.fsencode(path.absolute()))}?{mode}"
            with closing(sqlite3.connect(address, uri=True)) as connection:
                connection.text_factory = bytes
                connection.execute("PRAGMA writable_schema=ON")  # or a file that is too short is not read at all
                connection.execute("SELECT id FROM examples LIMIT 0")  # no use where the table is not known
                rows = list(_rows(connection))
            if rows:
                return sorted(rows, key=lambda row: row["change"])
    return []


def _rows(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    highest = _highest_id(connection)
    reader = _RangeReader(connection)
    for first in range(1, highest + 1, RANGE):
        for values in reader.read(first, min(first + RANGE - 1, highest)):
            row = dict(zip(EXAMPLE_COLUMNS, map(_decoded, values), strict=True))
            if _plausible(row):
                yield row


class _RangeReader:
    """Reads rows by ranges of their ids; gives up after too many failures, when nearly all is damaged."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._failures = 0

    def read(self, first: int, last: int) -> list[tuple[Any, ...]]:
        """Return the readable rows of a range."""
        query = f"SELECT {', '.join(EXAMPLE_COLUMNS)} FROM examples WHERE id BETWEEN ? AND ?"
        try:
            return self._connection.execute(query, (first, last)).fetchall()
        except sqlite3.Error:
            self._failures += 1
            if first == last or self._failures > MAX_FAILURES:
                return []
            middle = (first + last) // 2
            return self.read(first, middle) + self.read(middle + 1, last)


def _highest_id(connection: sqlite3.Connection) -> int:
    """Return a number that no row's id exceeds: each new row has used up one change."""
    with suppress(sqlite3.Error, TypeError, ValueError):
        (value,) = connection.execute("SELECT value FROM meta WHERE name = 'change'").fetchone()
        return min(int(value), 64 * HIGHEST_ID)
    return HIGHEST_ID


def _decoded(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _plausible(row: dict[str, Any]) -> bool:
    texts = [row["text"], row["label"], row["file"]]
    optional = [row["text_pair"], row["set_aside"]]
    return (
        all(isinstance(text, str) and "\ufffd" not in text for text in texts)
        and all(text is None or isinstance(text, str) for text in optional)
        and all(isinstance(row[name], int) for name in ("change", "corrections", "line"))
        and isinstance(row["received_s"], float)
    )
