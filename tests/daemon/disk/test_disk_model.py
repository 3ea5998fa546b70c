"""The recorder and the model of a disk, on traces made by hand: a missing fsync must be found."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edge_far.storage import write_atomically
from tests.daemon.disk.disk_model import Crash, after_power_cut
from tests.daemon.disk.disk_operations import (
    ROOT,
    Exchange,
    Link,
    Make,
    Mark,
    Operation,
    Rename,
    Sync,
    Truncate,
    Unlink,
    Write,
)
from tests.daemon.disk.disk_trace import parse, record

OLD: list[Operation] = [Make(1, "file"), Link(ROOT, "f", 1), Write(1, 0, b"old"), Sync(1), Sync(ROOT)]
NEW: list[Operation] = [Make(2, "file"), Link(ROOT, ".f.tmp", 2), Write(2, 0, b"new")]
REPLACE: list[Operation] = [Rename(ROOT, ".f.tmp", ROOT, "f", 2)]
MODES: tuple[Crash, ...] = ("strict", "torn", "journal")


def found(operations: Sequence[Operation], root: Path, crash: Crash, seeds: int = 60) -> set[bytes | None]:
    """Return all that `f` can hold after a power cut at the end of the operations."""
    contents = set()
    for seed in range(seeds):
        folder = root / f"{crash}-{seed}"
        folder.mkdir(parents=True)
        after_power_cut(operations, len(operations), crash, random.Random(seed)).write_to(folder)
        file = folder / "f"
        contents.add(file.read_bytes() if file.exists() else None)
        shutil.rmtree(folder)
    return contents


@pytest.mark.parametrize("crash", MODES)
def test_a_complete_replacement_survives(crash: Crash, tmp_path: Path) -> None:
    operations = [*OLD, *NEW, Sync(2), *REPLACE, Sync(ROOT)]
    assert found(operations, tmp_path, crash) == {b"new"}


@pytest.mark.parametrize("crash", MODES)
def test_a_replacement_under_way_leaves_old_or_new(crash: Crash, tmp_path: Path) -> None:
    operations = [*OLD, *NEW, Sync(2), *REPLACE]
    expected = {b"old"} if crash == "strict" else {b"old", b"new"}
    assert found(operations, tmp_path, crash) == expected


@pytest.mark.parametrize("crash", MODES)
def test_a_missing_fsync_of_the_file_is_found(crash: Crash, tmp_path: Path) -> None:
    operations = [*OLD, *NEW, *REPLACE, Sync(ROOT)]
    contents = found(operations, tmp_path, crash)
    assert b"" in contents and b"old" not in contents


def test_a_missing_fsync_of_the_directory_is_found(tmp_path: Path) -> None:
    operations = [*OLD, *NEW, Sync(2), *REPLACE, Mark("acknowledged")]
    assert found(operations, tmp_path, "strict") == {b"old"}


def test_a_write_that_was_not_synced_can_be_torn(tmp_path: Path) -> None:
    operations = [*OLD, Write(1, 0, b"n" * 1500)]
    contents = found(operations, tmp_path, "torn", 200)
    assert {b"old", b"n" * 1500} < contents
    assert bytes(512) + b"n" * 512 in {b"\0\0\0" + (content or b"")[3:1024] for content in contents}


def test_what_was_synced_stays_whatever_comes_later(tmp_path: Path) -> None:
    operations = [*OLD, Truncate(1, 0), Unlink(ROOT, "f", 1)]
    assert found(operations, tmp_path, "strict") == {b"old"}
    assert found(operations, tmp_path, "torn") == {b"old", b"", None}


def test_a_directory_nobody_synced_is_empty(tmp_path: Path) -> None:
    operations = [Make(1, "directory"), Link(ROOT, "d", 1), Make(2, "file"), Link(1, "f", 2), Sync(2), Sync(ROOT)]
    after_power_cut(operations, len(operations)).write_to(tmp_path)
    assert (tmp_path / "d").is_dir() and not list((tmp_path / "d").iterdir())


def test_an_exchange_is_one_step(tmp_path: Path) -> None:
    operations = [*OLD, *NEW, Sync(2), Sync(ROOT), Exchange(ROOT, ".f.tmp", 2, "f", 1)]
    assert found(operations, tmp_path, "torn") == {b"old", b"new"}


def test_links_keep_their_target(tmp_path: Path) -> None:
    operations = [Make(1, "link", "releases/x"), Link(ROOT, "current", 1), Sync(ROOT)]
    after_power_cut(operations, len(operations)).write_to(tmp_path)
    assert (tmp_path / "current").readlink() == Path("releases/x")


# --- recording ------------------------------------------------------------------------------------------------


def hexadecimal(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


def test_reading_a_trace_of_two_processes() -> None:
    home, file = hexadecimal("/s"), hexadecimal("/s/a")
    lines = [
        f'7 1.000001 openat(AT_FDCWD<{home}>, "{hexadecimal("a")}", O_WRONLY|O_CREAT|O_TRUNC, 0600) = 3<{file}>',
        f'7 1.000002 write(3<{file}>, "{hexadecimal("xyz")}", 3 <unfinished ...>',
        f'8 1.000003 write(5<{hexadecimal("/m")}>, "{hexadecimal("17")}\\x0a", 3) = 3',
        "7 1.000004 <... write resumed>) = 2",
        f'7 1.000005 write(3<{file}>, "{hexadecimal("!")}", 1) = 1',
        f'7 1.000006 rename("{file}", "{hexadecimal("/s/b")}") = 0',
        f'7 1.000007 unlink("{hexadecimal("/s/none")}") = -1 ENOENT (No such file or directory)',
        f"7 1.000008 fsync(3<{hexadecimal('/s/b')}>) = 0",
        f'7 1.000009 unlink("{hexadecimal("/elsewhere")}") = 0',
    ]
    assert parse(lines, Path("/s"), Path("/m")) == [
        *(Make(1, "file"), Link(ROOT, "a", 1), Mark(17)),
        *(Write(1, 0, b"xy", 1_000_004_000), Write(1, 2, b"!", 1_000_005_000)),
        *(Rename(ROOT, "a", ROOT, "b", 1), Sync(1)),
    ]


@pytest.fixture
def strace() -> Iterator[None]:
    """Skip where nothing can be recorded."""
    try:
        done = subprocess.run(["strace", "-f", "--seccomp-bpf", "-qq", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if done.returncode:
        pytest.skip("strace is not allowed to trace here")
    yield


CAREFUL = (
    "from edge_far.storage import write_atomically as write; from pathlib import Path; write(Path({path!r}), b'new')"
)
CARELESS = "import os; open({path!r} + '.tmp', 'wb').write(b'new'); os.rename({path!r} + '.tmp', {path!r})"
WORKLOAD = """
import os, sys, subprocess
top, marks = sys.argv[1:]
with open(marks, "ab", buffering=0) as file:
    subprocess.run([sys.executable, "-c", {code!r}], check=True)
    file.write(b'"acknowledged"\\n')
"""


@pytest.mark.parametrize(("code", "expected"), [(CAREFUL, {b"new"}), (CARELESS, {None})])
def test_a_recorded_program_is_judged(strace: None, code: str, expected: set[bytes | None], tmp_path: Path) -> None:
    top, marks = tmp_path / "top", tmp_path / "marks"
    top.mkdir()
    script = tmp_path / "workload.py"
    script.write_text(WORKLOAD.format(code=code.format(path=str(top / "f"))))
    operations = record([sys.executable, script, top, marks], top, marks, environment=dict(os.environ))
    assert operations[-1] == Mark("acknowledged")
    assert found(operations, tmp_path / "after", "strict", 1) == expected
    cuts = range(len(operations))
    for cut in cuts if code == CAREFUL else ():
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        after_power_cut(operations, cut, "torn", random.Random(cut)).write_to(folder)
        assert not (folder / "f").exists() or (folder / "f").read_bytes() == b"new"
    write_atomically(top / "f", b"still writable")
