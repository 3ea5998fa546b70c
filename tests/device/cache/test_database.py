"""The cache's file: bounded, checksummed, never a reason to fail."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_far.device.cache.database import RowDatabase

MIB = 1 << 20


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def content(number: int, size: int = 3000) -> bytes:
    return bytes((number + index) % 251 for index in range(size))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "hidden.sqlite3"


@pytest.fixture
def database(path: Path) -> Iterator[RowDatabase]:
    opened = RowDatabase(path, 64 * MIB)
    yield opened
    opened.close()


def test_rows_come_back_in_another_process_too(database: RowDatabase, path: Path) -> None:
    assert database.write({key(n): content(n) for n in range(600)})
    other = RowDatabase(path, 64 * MIB)
    wanted = [key(n) for n in range(700)]
    assert other.known(wanted) == set(wanted[:600])
    assert other.read(wanted) == {key(n): content(n) for n in range(600)}
    other.close()


def test_the_bound_ends_storing_and_nothing_else(path: Path) -> None:
    database = RowDatabase(path, MIB)
    stored = 0
    while database.write({key(stored): content(stored, 20_000)}):
        stored += 1
    assert 40 <= stored <= 52 and database.used_bytes() <= MIB
    assert not database.write({key(999): b"small"}), "it stays full until rows go"
    assert database.read([key(0)]) == {key(0): content(0, 20_000)}
    database.close()


def test_rows_of_other_prefixes_go_first_then_the_oldest_that_nobody_needs(path: Path) -> None:
    database = RowDatabase(path, MIB)
    own, other = b"own", b"oth"
    rows = [(own if n % 2 else other) + bytes(28) + bytes([n]) for n in range(40)]
    for name in rows:
        assert database.write({name: content(1, 20_000)})
    needed = set(rows[1:4:2])
    new = {own + b"new" + bytes([n]): content(n, 20_000) for n in range(36)}
    assert not database.write(new) and database.make_room(new, needed, own) and database.write(new)
    left = database.known(rows)
    assert needed <= left and database.used_bytes() <= MIB
    assert not any(name.startswith(other) for name in left), "of another prefix"
    unneeded = [name for name in rows if name.startswith(own) and name not in needed]
    assert [name in left for name in unneeded] == sorted(name in left for name in unneeded), "the oldest first"
    assert 0 < len(left - needed) < len(unneeded)
    assert database.read(list(new)) == new
    database.close()


def test_only_the_bound_lets_rows_go_and_never_those_that_are_needed(path: Path) -> None:
    database = RowDatabase(path, MIB)
    rows = {key(n): content(n, 20_000) for n in range(40)}
    assert database.write(rows)
    assert not database.make_room({key(99): b"small"}, set(), b"x"), "there is room: the disk is what lacks"
    assert not database.make_room({key(99): bytes(2 * MIB)}, set(), b"x"), "it would not fit alone"
    assert not database.make_room({key(99): bytes(MIB // 2)}, set(rows), b"x")
    assert database.known(list(rows)) == set(rows) and database.full
    database.close()


def test_a_writer_that_does_not_end_costs_no_row(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_far.device.cache.database.BUSY_TIMEOUT_S", 0.05)
    database, rows = RowDatabase(path, MIB), {key(n): content(n, 20_000) for n in range(45)}
    assert database.write(rows)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not database.make_room({key(99): bytes(MIB // 4)}, set(), b"x")
    other.execute("ROLLBACK")
    other.close()
    assert database.read(list(rows)) == rows
    database.close()


def test_a_flipped_byte_anywhere_never_gives_a_wrong_row(database: RowDatabase, path: Path) -> None:
    rows = {key(n): content(n) for n in range(20)}
    database.write(rows)
    database.close()
    sound = path.read_bytes()
    for place in range(0, len(sound), 1499):
        damaged = bytearray(sound)
        damaged[place] ^= 0x40
        for companion in ("-wal", "-shm"):
            path.with_name(path.name + companion).unlink(missing_ok=True)
        path.write_bytes(damaged)
        again = RowDatabase(path, 64 * MIB)
        found = again.read(list(rows))
        assert all(rows[name] == data for name, data in found.items()), place
        assert again.write(rows) or again.write(rows), "a second try after a fresh start"
        assert again.read(list(rows)) == rows, place
        again.close()


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_file_that_is_none_is_replaced(database: RowDatabase, path: Path, damage: str) -> None:
    database.write({key(n): content(n) for n in range(50)})
    database.close()
    sound = path.read_bytes()
    path.write_bytes({"truncated": sound[: len(sound) // 2], "empty": b"", "text": b"hello " * 2000}[damage])
    again = RowDatabase(path, 64 * MIB)
    found = again.read([key(n) for n in range(50)])
    assert all(data == content(int.from_bytes(name, "big")) for name, data in found.items())
    assert again.write({key(1): content(1)}) or again.write({key(1): content(1)})
    assert again.read([key(1)]) == {key(1): content(1)}
    again.close()


def test_a_damaged_row_counts_as_missing(database: RowDatabase, path: Path) -> None:
    database.write({key(1): content(1), key(2): content(2)})
    with sqlite3.connect(path) as direct:
        direct.execute("UPDATE rows SET data = ? WHERE key = ?", (content(3), key(1)))
    direct.close()
    assert database.read([key(1), key(2)]) == {key(2): content(2)}


def test_rows_of_others_go_and_their_bytes_with_them(database: RowDatabase, path: Path) -> None:
    secret = b"very private hidden states " * 50
    database.write({key(1): secret} | {key(n): content(n) for n in range(2, 300)})
    assert database.keep_only([key(n) for n in range(200, 300)]) == 199
    assert database.known([key(1), key(200)]) == {key(200)}
    database.close()
    assert secret[:27] not in b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert path.stat().st_size < 100 * 4096 * 1.5


def test_a_full_disk_ends_storing(database: RowDatabase) -> None:
    database._connection.execute("PRAGMA max_page_count = 40")
    assert not database.write({key(n): content(n) for n in range(200)})
    assert database.full and not database.known([key(0)])


KILLED = """
import sys
from pathlib import Path
from edge_far.device.cache.database import RowDatabase
database = RowDatabase(Path(sys.argv[1]), 1 << 30)
for start in range(0, 10**6, 20):
    database.write({n.to_bytes(32, "big"): bytes((n + i) % 251 for i in range(3000)) for n in range(start, start + 20)})
    print(start + 20, flush=True)
"""


BOUNDED = (
    KILLED.replace("1 << 30", "1 << 20")
    .replace("    database.write(", "    database.full = False\n    for _ in range(2): database.write(")
    .replace(
        "    print",
        """    if database.full:
        database.make_room({b"0" * 32: bytes(60_000)}, set(), b"x")
    print""",
    )
)


def test_sigkill_while_rows_go_leaves_whole_rows(path: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", BOUNDED, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while int(process.stdout.readline()) < 400:
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
        database = RowDatabase(path, MIB)
        known = database.known([key(n) for n in range(2000)])
        assert known and database.used_bytes() <= MIB
        assert database.read(list(known)) == {name: content(int.from_bytes(name, "big")) for name in known}
        assert database._ask("PRAGMA integrity_check", ()) == [("ok",)]
        database.close()


def test_sigkill_leaves_whole_rows_or_none(path: Path) -> None:
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        with process.stdout:
            told = [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()
        database = RowDatabase(path, 1 << 30)
        certain = [key(n) for n in range(max(told, default=20))]
        assert database.read(certain) == {name: content(int.from_bytes(name, "big")) for name in certain}
        database.close()
