"""Notes: kept over processes, gravest first, damaged files count as empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_far.daemon.notes import Notes


def test_notes_live_until_they_are_over_and_keep_their_time(tmp_path: Path) -> None:
    path = tmp_path / "notes.json"
    now = 100.0
    notes = Notes(path, clock=lambda: now)
    notes.tell("spool", "a link was refused")
    notes.tell("error", "disk full", "free some")
    now = 200.0
    notes.tell("spool", "a link was refused")
    again = Notes(path)
    assert [(note.topic, note.since_s) for note in again.all()] == [("error", 100.0), ("spool", 100.0)]
    again.tell("error", None)
    assert [note.topic for note in Notes(path).all()] == ["spool"]


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "null", '[{"topic": 1}]', '[{"topic": "x", "text": 3}]', "[" * 100_000]
)
def test_a_damaged_file_counts_as_empty(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.json"
    path.write_text(content)
    assert Notes(path).all() == []
