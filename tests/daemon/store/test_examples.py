"""The store: identity of examples, corrections, retention, clocks, migrations, damaged and locked files."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from edge_far.daemon.store import database, recovery, retention
from edge_far.daemon.store import examples as store
from edge_far.daemon.store.examples import Source, Store
from edge_far.daemon.store.identity import example_key, is_held_out
from edge_far.daemon.store.retention import Retention
from edge_far.daemon.store.schema import MIGRATIONS
from edge_far.errors import ConfigError, DataError, StorageError
from edge_far.texts.data import Example

HERE = Source("a.jsonl", 3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


def add(target: Store, text: str, label: str, source: Source = HERE) -> str:
    with target.transaction():
        return target.add(Example(text, None, label), source)


def texts(target: Store, *, held_out: bool) -> dict[str, str | None]:
    return {stored.example.text: stored.example.label for stored in target.examples(held_out=held_out)}


def test_examples_survive_and_split_by_hash(path: Path) -> None:
    with Store(path) as first:
        for number in range(50):
            assert add(first, f"text {number}", "x") == "new"
    with Store(path, held_out_share=0.9) as again:  # the share of the first opening is for ever
        expected = {f"text {n}" for n in range(50) if is_held_out(example_key(f"text {n}"), 0.2)}
        assert set(texts(again, held_out=True)) == expected
        assert len(texts(again, held_out=False)) == 50 - len(expected)
        counts = again.counts()
    assert (counts.examples, counts.held_out) == (50, len(expected))
    assert (counts.labels, counts.highest_change) == (1, 50)


def test_later_label_wins_and_counts_as_new(path: Path) -> None:
    with Store(path) as target:
        assert add(target, "Lights on", "on") == "new"
        assert add(target, "other", "off") == "new"
        assert add(target, " lights  ON", "on") == "duplicate"
        assert target.counts(since_change=2).new_examples == 0
        assert add(target, "lights on", "off", Source("b.jsonl", 9)) == "corrected"
        counts = target.counts(since_change=2)
        assert (counts.examples, counts.new_examples, counts.highest_change) == (2, 1, 3)
        found = [s for side in (True, False) for s in target.examples(held_out=side) if s.corrections]
    assert [(s.example.text, s.example.label, s.change, s.source) for s in found] == [
        ("Lights on", "off", 3, Source("b.jsonl", 9))
    ]


def test_a_failed_transaction_leaves_nothing(path: Path) -> None:
    with Store(path) as target:
        with pytest.raises(DataError, match="no label"), target.transaction():
            target.add(Example("kept?", None, "x"), HERE)
            target.add(Example("unlabelled"), HERE)
        assert target.counts().examples == 0 and target.highest_change() == 0


def test_feedback_labels_predictions_later(path: Path) -> None:
    with Store(path) as target, target.transaction():
        for name, prediction in (("p1", "on"), ("p2", "on"), ("p3", "on"), ("p4", None)):
            target.add_prediction(name, Example(f"text {name}"), prediction)
        assert target.add_feedback("p1", HERE, correct=True) == "new"
        assert target.add_feedback("p2", HERE, label="off") == "new"
        assert target.add_feedback("p3", HERE, correct=False) == "noted"
        with pytest.raises(DataError, match="no prediction was given"):
            target.add_feedback("p4", HERE, correct=True)
        with pytest.raises(DataError, match=r"a\.jsonl:3: no prediction with the id 'p1'"):
            target.add_feedback("p1", HERE, correct=True)
        assert [name for name, _, _ in target.waiting_predictions()] == ["p3", "p4"]
        labelled = texts(target, held_out=False) | texts(target, held_out=True)
        assert labelled == {"text p1": "on", "text p2": "off"}


def test_set_aside_and_bring_back(path: Path) -> None:
    with Store(path) as target:
        for number in range(6):
            add(target, f"text {number}", "x")
        with target.transaction():
            assert target.set_aside(2, 5, "killed the trainer twice") == 3
        assert (target.counts().examples, target.counts().set_aside) == (3, 3)
        with target.transaction():
            assert target.bring_back() == 3
        counts = target.counts(since_change=6)
        assert (counts.examples, counts.new_examples, counts.set_aside) == (6, 3, 0)


def test_replay_is_split_and_replaced(path: Path) -> None:
    samples = [Example(f"host {n}", None, "x") for n in range(40)] + [Example("no label")]
    with Store(path) as target:
        with target.transaction():
            assert target.replace_replay(samples) == 40
        train, measure = set(target.replay(held_out=False)), set(target.replay(held_out=True))
        assert train | measure == set(samples[:40]) and not train & measure and len(measure) > 10
        with target.transaction():
            assert target.replace_replay([]) == 0


def test_samples_of_their_own_measure_forgetting(path: Path) -> None:
    samples = [Example(f"host {n}", None, "x") for n in range(40)]
    unseen = [Example("host 3", None, "x"), Example("unseen", None, "x"), Example("no label")]
    with Store(path) as target, target.transaction():
        assert target.replace_replay(samples, unseen) == 41
        assert set(target.replay(held_out=True)) == set(unseen[:2])
        assert set(target.replay(held_out=False)) == set(samples) - set(unseen)
        assert target.replace_replay([], unseen) == 2


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (Retention(None, None, None), 10),
        (Retention(max_examples=4), 4),
        (Retention(max_examples=None, max_mib=3.5 / 1024), 3),  # ten texts of 1 KiB
        (Retention(max_age_days=5.5), 5),
    ],
)
def test_retention_removes_the_earliest(path: Path, limits: Retention, left: int) -> None:
    day = retention.DAY_S
    for number in range(10):
        with Store(path, clock=lambda number=number: 1e9 + number * day) as target:
            add(target, f"{number}".ljust(1024, "."), "x")
    with Store(path, clock=lambda: 1e9 + 10 * day) as target:
        assert target.enforce(limits) == 10 - left
        kept = sorted(t.rstrip(".") for t in texts(target, held_out=False) | texts(target, held_out=True))
    assert kept == [str(n) for n in range(10 - left, 10)]


@pytest.mark.parametrize("jump_days", [365, -365, -20_000])
def test_wrong_clock_expires_nothing(path: Path, jump_days: int) -> None:
    limits = Retention(max_age_days=90)
    with Store(path, clock=lambda: 2e9) as target:
        add(target, "before", "x")
    with Store(path, clock=lambda: 2e9 + jump_days * retention.DAY_S) as target:
        add(target, "after the jump", "x")
        at_jump = target.now_s()
        assert target.enforce(limits) == 0  # which keeps the clock
    with Store(path, clock=lambda: 2e9 + 60) as target:
        assert target.now_s() >= at_jump
        assert target.enforce(limits) == 0
        assert target.counts().examples == 2


def test_file_shrinks_with_its_content(path: Path) -> None:
    with Store(path) as target:
        with target.transaction():
            for number in range(2000):
                target.add(Example(f"{number} ".ljust(500, "."), None, "x"), HERE)
        target.enforce(Retention())
    full = path.stat().st_size
    with Store(path) as target:
        assert target.enforce(Retention(max_examples=10)) == 1990
    assert path.stat().st_size < full / 10


def test_removed_text_leaves_no_trace_in_the_file(path: Path) -> None:
    with Store(path) as target:
        add(target, "a very private sentence", "x")
        target.enforce(Retention(max_examples=0))
    assert b"very private" not in path.read_bytes()


def test_quarantine_is_bounded_and_counts_what_it_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "QUARANTINE_LINES", 5)
    with Store(path) as target:
        with target.transaction():
            for line in range(8):
                target.quarantine(Source("bad.jsonl", line), "broken JSON", b"x" * 10_000, 123_456)
        target.enforce(Retention())
        kept = target.quarantined()
        assert [source.line for source, _, _ in kept] == [7, 6, 5, 4, 3]
        assert all(len(excerpt) == store.EXCERPT_BYTES for _, _, excerpt in kept)
        assert target.counts().quarantine_let_go == 3


def test_first_schema_migrates(path: Path) -> None:
    database.Database(path, MIGRATIONS[:1]).close()
    old = sqlite3.connect(path)
    old.execute(
        "INSERT INTO examples (key, text, label, held_out, change, file, line, bytes, received_s)"
        " VALUES (?, 'old', 'x', 0, 1, 'f', 1, 3, 0)",
        (example_key("old"),),
    )
    old.execute("INSERT INTO meta VALUES ('change', 1)")
    old.execute("INSERT INTO meta VALUES ('held_out_share', 0.0)")
    old.commit()
    assert old.execute("PRAGMA user_version").fetchone() == (1,)
    old.close()
    with Store(path) as target:
        assert texts(target, held_out=False) == {"old": "x"}
        with target.transaction():
            assert target.replace_replay([Example("host", None, "x")]) == 1
        assert add(target, "new", "y") == "new" and target.highest_change() == 2


def test_migration_is_all_or_nothing(path: Path) -> None:
    database.Database(path, MIGRATIONS[:1]).close()
    with pytest.raises(StorageError, match="syntax error"):
        database.Database(path, (MIGRATIONS[0], "CREATE TABLE half (x);\nCREATE NONSENSE;\n"))
    probe = sqlite3.connect(path)
    assert probe.execute("PRAGMA user_version").fetchone() == (1,)
    assert probe.execute("SELECT count(*) FROM sqlite_master WHERE name = 'half'").fetchone() == (0,)
    probe.close()


def test_newer_schema_is_refused(path: Path) -> None:
    database.Database(path, (*MIGRATIONS, "CREATE TABLE later (x);\n")).close()
    with pytest.raises(ConfigError, match="newer edge-far"):
        Store(path)


def test_recovery_keeps_order_corrections_and_what_was_set_aside(path: Path, tmp_path: Path) -> None:
    with Store(path) as target:
        add(target, "a", "old", Source("one.jsonl", 1))
        add(target, "b", "x", Source("one.jsonl", 2))
        add(target, "a", "new", Source("two.jsonl", 1))
        with target.transaction():
            target.set_aside(1, 2, "killed the trainer")
        target.backup(tmp_path / "copy")
    with Store(tmp_path / "fresh") as fresh:
        add(fresh, "c", "y")
        assert fresh.restore(recovery.readable_examples(tmp_path / "copy")) == 2
        assert fresh.restore(recovery.readable_examples(tmp_path / "copy")) == 0
        counts = fresh.counts()
        assert (counts.examples, counts.set_aside, counts.highest_change) == (2, 1, 3)
        (a,) = [s for side in (True, False) for s in fresh.examples(held_out=side) if s.example.text == "a"]
        assert (a.example.label, a.corrections, a.source) == ("new", 1, Source("two.jsonl", 1))


def test_locked_store_is_a_clear_error(path: Path) -> None:
    with Store(path) as target, target.transaction():
        other = Store.__new__(Store)
        with pytest.raises(StorageError, match="locked by another process"):
            other.__init__(path, busy_timeout_s=0.05)  # type: ignore[misc]


def test_two_writers_take_turns(path: Path) -> None:
    with Store(path) as first, Store(path) as second:
        assert add(first, "one", "x") == "new"
        assert add(second, "two", "x") == "new"
        assert add(first, "Two", "y") == "corrected"
        assert second.highest_change() == 3


def test_file_modes_and_links(tmp_path: Path, path: Path) -> None:
    previous = os.umask(0)
    try:
        with Store(path) as target:
            add(target, "x", "x")
            modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    assert set(modes) >= {"store.sqlite3", "store.sqlite3-wal"} and set(modes.values()) == {0o600}
    elsewhere = tmp_path / "elsewhere"
    path.with_name("linked").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="not a regular file"):
        Store(path.with_name("linked"))
    assert not elsewhere.exists()


def test_missing_directory_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the directory first"):
        Store(tmp_path / "nowhere" / "store.sqlite3")
