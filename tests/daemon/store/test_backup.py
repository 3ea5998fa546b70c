"""A damaged store, its copy, and the spool files read since: together they lose nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.daemon.intake import spool
from edge_far.daemon.intake.ingest import Ingestion
from edge_far.daemon.store import backup, database
from edge_far.daemon.store.backup import back_up, backup_path, is_due, open_or_replace
from edge_far.daemon.store.examples import Source, Store
from edge_far.daemon.store.journal import FINISHED, Journal
from edge_far.texts.data import Example

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda whole: whole[: len(whole) // 2],
    "shortened": lambda whole: whole[:-4096],
    "empty": lambda whole: b"",
    "header": lambda whole: b"\0" * 100 + whole[100:],
    "page": lambda whole: whole[:4096] + b"\xff" * 8192 + whole[12288:],
    "text": lambda whole: b"this is no database\n" * 500,
    "gone": lambda whole: None,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


def harm(path: Path, damage: str) -> None:
    content = DAMAGES[damage](path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)


def labels(store: Store) -> dict[str, str | None]:
    return {s.example.text: s.example.label for side in (True, False) for s in store.examples(held_out=side)}


@pytest.mark.parametrize("damage", sorted(set(DAMAGES) - {"gone", "shortened"}))
def test_a_damaged_file_is_set_aside_never_deleted(path: Path, directory: Path, damage: str) -> None:
    with Store(path) as store, store.transaction():
        for number in range(500):
            store.add(Example(f"text {number}", None, "x"), Source("a.jsonl", 1))
    harm(path, damage)
    broken = path.read_bytes()
    with pytest.raises(database.DatabaseDamaged, match="damaged"):
        Store(path)
    store, note = open_or_replace(path, directory)
    with store:
        assert note is not None and "kept as store.sqlite3.corrupt-1" in note
        found = store.counts().examples
        assert f"{found} examples were recovered" in note
        assert {"truncated": found > 100, "page": found > 400}.get(damage, found == 0)
        assert set(labels(store)) <= {f"text {n}" for n in range(500)}
    assert path.with_name("store.sqlite3.corrupt-1").read_bytes() == broken
    again, note = open_or_replace(path, directory)
    again.close()
    assert note is None
    path.write_bytes(b"worse")
    again, note = open_or_replace(path, directory)
    again.close()
    assert note is not None and "corrupt-2" in note


def fill(path: Path, directory: Path) -> dict[str, str]:
    """Make a store of which some is in the copy, some was read since, some is being read, and some waits."""

    class Enough(Exception):
        pass

    def stop() -> None:
        raise Enough

    for number in range(30):
        spool.add(f"early {number}", "x", spool=directory)
    spool.add("asked early", id="7", prediction="y", spool=directory)
    with Store(path) as store:
        Ingestion(directory, store).run()
        back_up(store, path, directory)
        assert not any((directory / ".kept").iterdir())
        assert stat.S_IMODE(backup_path(path).stat().st_mode) == 0o600
        for number in range(30):
            spool.add(f"late {number}", "x", spool=directory)
        for label in ("first", "second"):
            spool.add("early 3", label, spool=directory)
            spool.add("late 3", label, spool=directory)
        spool.add(id="7", feedback="correct", spool=directory)
        Ingestion(directory, store).run()
        spool.add("under way", "x", spool=directory)
        with pytest.raises(Enough):
            Ingestion(directory, store, tick=stop).run()
    spool.add("late 4", "third", spool=directory)
    expected = {f"{when} {number}": "x" for when in ("early", "late") for number in range(30)}
    return expected | {"asked early": "y", "under way": "x", "early 3": "second", "late 3": "second", "late 4": "third"}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_nothing_is_lost_or_doubled(path: Path, directory: Path, damage: str) -> None:
    expected = fill(path, directory)
    harm(path, damage)
    store, note = open_or_replace(path, directory)
    with store:
        assert note is not None
        report = Ingestion(directory, store).run()
        assert labels(store) == expected and report.problems == [] and store.counts().quarantined == 0
        assert store.spool_names() == []


def test_without_a_copy_what_was_read_is_still_there(path: Path, directory: Path) -> None:
    fill(path, directory)
    harm(path, "text")
    backup_path(path).write_bytes(b"no copy either")
    store, _ = open_or_replace(path, directory)
    with store:
        Ingestion(directory, store).run()
        assert {f"late {number}" for number in range(30)} <= set(labels(store))


def test_a_cycle_under_way_in_the_copy_is_not_gone_on_with(path: Path, directory: Path) -> None:
    with Store(path) as store:
        Journal(store).start("training", change=3, base="000000-00000000", details={})
        back_up(store, path, directory)
    harm(path, "text")
    store, _ = open_or_replace(path, directory)
    with store:
        assert Journal(store).under_way() is None
        (row,) = Journal(store).last(1)
        assert (row.state, row.outcome) == (FINISHED, "discarded")


def test_many_kept_files_ask_for_a_copy(path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "KEPT_FILES", 2)
    with Store(path) as store:
        spool.add("one", "x", spool=directory)
        Ingestion(directory, store).run()
        assert not is_due(directory)
        spool.add("two", "x", spool=directory)
        Ingestion(directory, store).run()
        assert is_due(directory)
        back_up(store, path, directory)
        assert not is_due(directory)


class PowerCut(Exception):
    """Ends a recovery at a chosen point."""


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_recovery_that_is_interrupted_anywhere_is_made_up_for(
    path: Path, directory: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill(path, directory)
    harm(path, damage)
    left = 0

    def breaking(genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise PowerCut
            return genuine(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("fsync", "rename", "unlink", "open"):
            patch.setattr(os, name, breaking(getattr(os, name)))
        cuts = 0
        while True:
            left = cuts + 1
            try:
                store, _ = open_or_replace(path, directory)
            except PowerCut:
                cuts += 1
                continue
            break
    with store:
        Ingestion(directory, store).run()
        assert labels(store) == expected
    assert cuts >= 10
