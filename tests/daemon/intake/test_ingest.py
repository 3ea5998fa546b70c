"""Ingestion: bad lines are quarantined, unsafe files refused, and everything is applied exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edge_far.daemon.intake import ingest, spool
from edge_far.daemon.intake.ingest import Ingestion, IngestReport
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.kept import kept_size, read_kept_again, remove_kept
from edge_far.errors import ConfigError, StorageError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "spool").mkdir()
    return tmp_path / "spool"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.sqlite3") as opened:
        yield opened


class PowerCut(Exception):
    """Ends a pass at a chosen point."""


def drop(directory: Path, name: str, *lines: bytes | dict[str, object], mtime_s: float = 1e9) -> Path:
    file = directory / name
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    file.write_bytes(b"".join(line + b"\n" for line in encoded))
    os.utime(file, (mtime_s, mtime_s))
    return file


def example(text: str, label: str = "x") -> dict[str, object]:
    return {"text": text, "label": label}


def labels(store: Store) -> dict[str, str | None]:
    both = [*store.examples(held_out=False), *store.examples(held_out=True)]
    return {stored.example.text: stored.example.label for stored in both}


def left(directory: Path) -> list[str]:
    """Return what was not read, or not to its end."""
    files = [p.relative_to(directory) for p in directory.rglob("*") if not p.is_dir()]
    return sorted(str(path) for path in files if path.parts[0] != ".kept")


def kept(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / ".kept").iterdir())


def test_mixed_file(directory: Path, store: Store) -> None:
    long = b'{"text": "' + b"y" * ingest.MAX_LINE_BYTES + b'"}'
    drop(
        *(directory, "a.jsonl", example("one"), b"", b"{broken", example("two"), b"\xff\xfe", long),
        *(
            example("One "),
            {"id": "p", "text": "later"},
            {"id": "p", "label": "y"},
            {"id": "q", "label": "y"},
        ),
    )
    drop(directory, "no-newline.jsonl")
    (directory / "no-newline.jsonl").write_bytes(json.dumps(example("three")).encode())
    report = Ingestion(directory, store).run()
    assert report == IngestReport(files=2, new=4, duplicates=1, predictions=1, feedback=2, quarantined=4, problems=[])
    assert labels(store) == {"one": "x", "two": "x", "three": "x", "later": "y"}
    bad = [(source.file, source.line, reason.split(":")[0]) for source, reason, _ in store.quarantined()]
    assert bad == [
        ("a.jsonl", 10, "no prediction with the id 'q' waits for feedback"),
        ("a.jsonl", 6, f"line of {len(long)} bytes is longer than {ingest.MAX_LINE_BYTES}"),
        ("a.jsonl", 5, "not UTF-8"),
        ("a.jsonl", 3, "broken JSON at column 2"),
    ]
    assert left(directory) == [] and store.spool_names() == []


def test_line_length_limit_is_exact(directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps(example("z" * 50)).encode()
    monkeypatch.setattr(ingest, "MAX_LINE_BYTES", len(line))
    drop(directory, "fits.jsonl", line, line.replace(b"z", b"w"))
    drop(directory, "long.jsonl", line + b" ", line.replace(b"z", b"v"), line * 5)
    report = Ingestion(directory, store).run()
    assert (report.new, report.quarantined) == (3, 2)
    lengths = [reason.split()[2] for _, reason, _ in store.quarantined()]
    assert lengths == [str(5 * len(line)), str(len(line) + 1)]


def test_unready_names_wait(directory: Path, store: Store) -> None:
    for name in (".half.jsonl", "half.jsonl.tmp", "half.tmp", "notes.txt"):
        drop(directory, name, example(name))
    (directory / "folder.jsonl").mkdir()
    report = Ingestion(directory, store).run()
    assert report == IngestReport()
    assert left(directory) == sorted([".half.jsonl", "half.jsonl.tmp", "half.tmp", "notes.txt"])


def test_later_file_corrects_earlier_one(directory: Path, store: Store) -> None:
    drop(directory, "b.jsonl", example("text", "first"), mtime_s=1e9)
    drop(directory, "a.jsonl", example("text", "second"), mtime_s=1e9 + 1)
    report = Ingestion(directory, store).run()
    assert (report.new, report.corrected) == (1, 1) and labels(store) == {"text": "second"}


@pytest.mark.parametrize("passes", [1, 2])
def test_a_later_file_with_an_older_date_wins(directory: Path, store: Store, passes: int) -> None:
    """In one pass and across passes, by text and by id; `touch -d @60` is what a clock set back looks like."""
    drop(directory, "a.jsonl", example("text", "first"), {"id": "7", "text": "asked"})
    if passes == 2:
        Ingestion(directory, store).run()
    drop(directory, "b.jsonl", example("text", "second"), {"id": "7", "label": "told"}, mtime_s=60)
    report = Ingestion(directory, store).run()
    assert labels(store) == {"text": "second", "asked": "told"}
    assert (report.corrected, report.quarantined, report.problems) == (1, 0, [])


def test_a_copied_file_from_the_future_does_not_win_over_what_comes_later(directory: Path, store: Store) -> None:
    drop(directory, "a.jsonl", example("text", "first"), mtime_s=4e9)
    drop(directory, "b.jsonl", example("text", "second"))
    spool.add("text", "third", spool=directory)
    Ingestion(directory, store).run()
    assert labels(store) == {"text": "third"}


def test_the_clock_set_back_between_adds(directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.add(id="7", text="asked", spool=directory)
    monkeypatch.setattr(spool.time, "time_ns", lambda: 60 * 10**9)
    spool.add("text", "first", spool=directory)
    spool.add(id="7", label="told", spool=directory)
    monkeypatch.undo()
    spool.add("text", "second", spool=directory)
    report = Ingestion(directory, store).run()
    assert labels(store) == {"text": "second", "asked": "told"} and report.quarantined == 0


def test_a_file_dated_before_the_last_look_is_told(
    directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(directory, "a.jsonl", example("text", "first"))
    Ingestion(directory, store).run()
    drop(directory, "b.jsonl", example("text", "second"))
    drop(directory, "c.jsonl", example("other", "third"))
    os.utime(directory / ".ingest", (4e9, 4e9))  # the daemon looked when the clock was ahead
    (problem,) = Ingestion(directory, store).run().problems
    assert "the clock was set back while 2 files came" in problem and "'b.jsonl' is dated before" in problem
    assert labels(store) == {"text": "second", "other": "third"}


def test_links_devices_and_pipes_are_refused_unread(directory: Path, store: Store, tmp_path: Path) -> None:
    secret = drop(tmp_path, "secret", example("secret"))
    (directory / "link.jsonl").symlink_to(secret)
    (directory / "dangling.jsonl").symlink_to("/nowhere")
    os.link(secret, directory / "hard.jsonl")
    os.mkfifo(directory / "pipe.jsonl")
    drop(directory, "good.jsonl", example("good"))
    report = Ingestion(directory, store).run()
    assert labels(store) == {"good": "x"} and report.files == 1 and len(report.problems) == 4
    assert sorted(name.partition("-")[2] for name in left(directory)) == [
        *("dangling.jsonl", "hard.jsonl", "link.jsonl", "pipe.jsonl")
    ]
    assert all(name.startswith(".refused/") for name in left(directory))
    assert secret.read_bytes() and Ingestion(directory, store).run() == IngestReport()


def test_file_swapped_for_a_link_after_the_claim(directory: Path, store: Store, tmp_path: Path) -> None:
    secret = drop(tmp_path, "secret", example("secret"))
    (directory / ".ingest").mkdir(mode=0o700)
    (directory / ".ingest" / "000000000001-a.jsonl").symlink_to(secret)
    Ingestion(directory, store).run()
    assert labels(store) == {} and left(directory) == [".refused/000000000001-a.jsonl"]


@pytest.mark.parametrize("kind", ["link", "others"])
@pytest.mark.parametrize("name", [".ingest", ".kept", ".refused"])
def test_private_directory_of_someone_else_is_refused(
    directory: Path, store: Store, tmp_path: Path, name: str, kind: str
) -> None:
    precious = drop(tmp_path, "precious", example("x"))
    if kind == "link":
        (directory / name).symlink_to(tmp_path)
    else:
        (directory / name).mkdir()
        (directory / name).chmod(0o777)
    attempts: list[Callable[[], object]] = [Ingestion(directory, store).run]
    if name != ".refused":
        attempts += [partial(remove_kept, directory), partial(read_kept_again, directory)]
    for attempt in attempts:
        with pytest.raises((ConfigError, StorageError), match=r"others may write|Not a directory|symbolic"):
            attempt()
    assert precious.exists()


def test_files_are_kept_until_there_is_a_second_copy(directory: Path, store: Store) -> None:
    drop(directory, "a.jsonl", example("text", "first"), mtime_s=1e9)
    drop(directory, "b.jsonl", example("text", "second"), mtime_s=1e9 + 1)
    Ingestion(directory, store).run()
    assert kept(directory) == ["000000000001-a.jsonl", "000000000002-b.jsonl"]
    assert kept_size(directory)[0] == 2
    drop(directory, "c.jsonl", example("text", "third"), mtime_s=1e9 - 1)
    read_kept_again(directory)
    report = Ingestion(directory, store).run()
    assert report.files == 3 and labels(store) == {"text": "third"}
    remove_kept(directory)
    assert kept(directory) == [] and kept_size(directory) == (0, 0)


def test_strange_names(directory: Path, store: Store) -> None:
    raw = os.fsencode(directory)
    for name in (b"\xff\x1b[2J.jsonl", b"..jsonl.jsonl", b"x" * 240 + b".jsonl", "ü '\"\n.jsonl".encode()):
        Path(os.fsdecode(raw + b"/" + name)).write_bytes(b"{\n")
    report = Ingestion(directory, store).run()
    shown = [source.file for source, _, _ in store.quarantined()]
    assert report.quarantined == 3 and all(name.isascii() and name.isprintable() for name in shown)
    assert left(directory) == ["..jsonl.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_told_and_does_not_block(directory: Path, store: Store) -> None:
    drop(directory, "locked.jsonl", example("locked")).chmod(0)
    drop(directory, "good.jsonl", example("good"))
    report = Ingestion(directory, store).run()
    assert labels(store) == {"good": "x"} and "mode 0640" in report.problems[0]


@pytest.mark.parametrize("cut", range(12))
def test_power_cut_between_any_two_steps(
    directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """Cut once at each fsync, rename and batch: after the next pass each line is applied exactly once."""
    monkeypatch.setattr(ingest, "BATCH_LINES", 2)
    drop(directory, "a.jsonl", *[example(f"t{n}", "a") for n in range(5)], b"bad", mtime_s=1e9)
    drop(directory, "b.jsonl", *[example(f"t{n}", "b") for n in range(3)], mtime_s=1e9 + 1)
    calls = 0

    def count(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls == cut + 1:
            raise PowerCut

    for name in ("fsync", "rename"):
        genuine = getattr(os, name)
        monkeypatch.setattr(ingest.os, name, lambda *a, g=genuine, **k: (count(), g(*a, **k)))
    with pytest.raises(PowerCut):
        Ingestion(directory, store, tick=count).run()
    report = Ingestion(directory, store).run()
    assert labels(store) == {"t0": "b", "t1": "b", "t2": "b", "t3": "a", "t4": "a"}
    assert store.highest_change() == 8 and store.counts().quarantined == 1
    assert left(directory) == [] and store.spool_names() == [] and not report.problems


def test_number_of_a_claim_is_not_used_again(directory: Path, store: Store) -> None:
    """A position whose file's removal was the last thing done must not be taken for that of a new file."""
    with store.transaction():
        store.set_spool_position("000000000001-a.jsonl", 999, 9, done=True)
    drop(directory, "a.jsonl", example("fresh"))
    Ingestion(directory, store).run()
    assert labels(store) == {"fresh": "x"}


KILLED = """
import sys
from pathlib import Path
from edge_far.daemon.intake import ingest
from edge_far.daemon.store.examples import Store
ingest.BATCH_LINES = 10
with Store(Path(sys.argv[1]) / "store.sqlite3") as store:
    ingest.Ingestion(Path(sys.argv[1]) / "spool", store).run()
"""


@pytest.mark.slow
def test_sigkill_at_random_moments(directory: Path, tmp_path: Path) -> None:
    """Files keep arriving while the process is killed and started again: nothing lost, nothing doubled."""
    arrived, kills = 0, 0
    while kills < 8:
        lines = [example(f"t{n}", "a") for n in range(arrived, arrived + 200)]
        bad = f"bad {arrived}".encode()
        arrived += 200
        drop(directory, f"{arrived}.jsonl", *lines, bad, mtime_s=1e9 + arrived)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
        time.sleep(0.12 + 0.02 * (kills % 8))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL or 1
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=True)
    with Store(tmp_path / "store.sqlite3") as store:
        assert labels(store) == {f"t{n}": "a" for n in range(arrived)}
        assert store.highest_change() == arrived
        places = [(source.file, source.line) for source, _, _ in store.quarantined(limit=10_000)]
        assert len(places) == len(set(places)) == arrived // 200
    assert left(directory) == []


def test_application_call_reaches_the_store(directory: Path, store: Store) -> None:
    spool.add("lights on", "on", spool=directory)
    spool.add("hm", id="7", prediction="on", spool=directory)
    spool.add(id="7", feedback="correct", spool=directory)
    spool.add("Lights ON", "off", spool=directory)
    report = Ingestion(directory, store, labels=["on", "off"]).run()
    assert (report.files, report.new, report.corrected, report.feedback) == (4, 2, 1, 1)
    assert labels(store) == {"lights on": "off", "hm": "on"}
