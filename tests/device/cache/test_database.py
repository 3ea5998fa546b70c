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
