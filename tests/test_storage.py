"""Atomic files and directories: real disk-full, failures at every system call, kill -9 at random moments."""

import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from edge_far import storage
from edge_far.errors import InputMissing, OutputExists, StorageError
from edge_far.storage import (
    check_file,
    publish_directory,
    remove_leftovers,
    replace_directory,
    sha256_of,
    staged_directory,
    unreadable,
    write_atomically,
    write_json,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def make(directory: Path, content: str) -> Path:
    (directory / "deep").mkdir(parents=True)
    (directory / "a").write_text(content)
    (directory / "deep" / "b").write_text(content)
    return directory


def read(directory: Path) -> tuple[str, str]:
    return (directory / "a").read_text(), (directory / "deep" / "b").read_text()


def disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Files


@pytest.mark.parametrize(
    ("number", "kind", "told"),
    [
        (errno.ENOENT, InputMissing, "x: no such file (make it)"),
        (errno.EISDIR, InputMissing, "x: is a directory, not a file (make it)"),
        (errno.EACCES, StorageError, "x: cannot be read: Permission denied (check its owner and mode)"),
        (errno.ELOOP, StorageError, "x: cannot be read: Too many levels of symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read_is_said_without_a_number(number: int, kind: type[Exception], told: str) -> None:
    error = unreadable(OSError(number, os.strerror(number)), Path("x"), "make it")
    assert type(error) is kind and str(error) == told


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    check_file(tmp_path / "new.png")
    assert names(tmp_path) == []
    with pytest.raises(StorageError, match="create the directory first"):
        check_file(tmp_path / "absent" / "new.png")
    with pytest.raises(StorageError, match=r"Is a directory.*name a file in it"):
        check_file(tmp_path)


def test_write_bytes_or_by_a_function(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomically(path, lambda file: file.writelines([b"t", b"wo"]))
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["state"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_write_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "Größe", "values": [1, 2.5, None]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "Größe" in text and text.endswith("}\n")
    assert json.loads(text) == {"name": "Größe", "values": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["values"] == [1, 2.5, None]


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_failure_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "state"
    write_atomically(path, b"old")
    monkeypatch.setattr(call, disk_full)
    with pytest.raises(StorageError) as caught:
        write_atomically(path, b"new")
    assert str(caught.value) == (
        f"{path}: cannot write: No space left on device "
        "(free space on this file system or choose another directory, then run the command again)"
    )
    assert caught.value.exit_code == 74
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state"]


def test_failure_of_the_writing_function_keeps_the_old_file(tmp_path: Path) -> None:
    def half(error: BaseException) -> None:
        def write(file: BinaryIO) -> None:
            file.write(b"half")
            raise error

        write_atomically(tmp_path / "state", write)

    write_atomically(tmp_path / "state", b"old")
    for error in (KeyboardInterrupt(), ValueError("defect")):
        with pytest.raises(type(error)):
            half(error)
    with pytest.raises(StorageError, match="the file system is read-only"):
        half(OSError(errno.EROFS, "Read-only file system"))
    assert (tmp_path / "state").read_bytes() == b"old"
    assert names(tmp_path) == ["state"]


def test_directory_missing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create the directory first"):
        write_atomically(tmp_path / "none" / "state", b"")


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    with pytest.raises(InputMissing):
        sha256_of(tmp_path / "b")
    with pytest.raises(StorageError, match="cannot read: Is a directory"):
        sha256_of(tmp_path)


# Directories


def test_publish(tmp_path: Path) -> None:
    publish_directory(make(tmp_path / "t", "1"), tmp_path / "final")
    assert read(tmp_path / "final") == ("1", "1")
    with pytest.raises(OutputExists, match="exists already and is not empty") as caught:
        publish_directory(make(tmp_path / "t", "2"), tmp_path / "final")
    assert caught.value.exit_code == 73
    assert read(tmp_path / "final") == ("1", "1")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputExists):
        publish_directory(make(tmp_path / "t", "2"), tmp_path / "file")
    (tmp_path / "empty").mkdir()
    publish_directory(make(tmp_path / "t", "3"), tmp_path / "empty")
    assert names(tmp_path) == ["empty", "file", "final"]


@pytest.mark.parametrize("exchange", [True, False])
def test_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    if not exchange:
        monkeypatch.setattr(storage, "exchange", lambda first, second: False)
    for content in "123":
        replace_directory(make(tmp_path / "t", content), tmp_path / "final")
        assert read(tmp_path / "final") == (content, content)
        assert names(tmp_path) == ["final"]


@pytest.mark.parametrize("call", ["os.fsync", "edge_far.storage.exchange", "pathlib.Path.rename"])
def test_failure_keeps_the_old_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    make(tmp_path / "final", "old")
    make(tmp_path / "t", "new")
    if call.endswith("rename"):
        monkeypatch.setattr(storage, "exchange", lambda first, second: False)
    monkeypatch.setattr(call, disk_full)
    with pytest.raises(StorageError, match="No space left on device"):
        replace_directory(tmp_path / "t", tmp_path / "final")
    assert read(tmp_path / "final") == ("old", "old")
    assert names(tmp_path) == ["final"]


def test_second_of_two_renames_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "final", "old")
    make(tmp_path / "t", "new")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        return disk_full() if self.name == "t" else rename(self, target)  # type: ignore[return-value]

    monkeypatch.setattr(storage, "exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StorageError):
        replace_directory(tmp_path / "t", tmp_path / "final")
    assert read(tmp_path / "final") == ("old", "old")
    assert names(tmp_path) == ["final"]


def test_staged_directory(tmp_path: Path) -> None:
    final = tmp_path / "final"
    with staged_directory(final) as directory:
        (directory / "a").write_text("1")
        assert not final.exists()
    assert names(final) == ["a"]
    with pytest.raises(OutputExists, match="choose another directory"), staged_directory(final):
        pytest.fail("the block must not run")
    with staged_directory(final, replace=True) as directory:
        (directory / "a").write_text("2")
    with pytest.raises(KeyError), staged_directory(final, replace=True) as directory:
        (directory / "a").write_text("3")
        raise KeyError
    with pytest.raises(StorageError), staged_directory(final, replace=True):
        disk_full()
    assert (final / "a").read_text() == "2"
    assert names(tmp_path) == ["final"]


def test_what_a_dead_process_left_goes_with_the_next_of_its_name(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    kept = [f".best.{os.getpid()}-0123abcd.tmp", ".best.0-0123abcd.tmp", ".best.notes.tmp"]
    for name in (*kept, f".best2.{dead.pid}-0123abcd.tmp", f".best.{dead.pid}-0123abcd.tmp"):
        (tmp_path / name).mkdir()
    with staged_directory(tmp_path / "best") as staging:
        (staging / "file").write_text("new")
    assert names(tmp_path) == sorted([*kept, f".best2.{dead.pid}-0123abcd.tmp", "best"])


def test_remove_leftovers(tmp_path: Path) -> None:
    final = tmp_path / "best[1]"
    make(tmp_path / ".best[1].123-0123abcd.tmp", "half")
    (tmp_path / ".best[1].99-0123abcd.tmp").write_text("half")
    make(tmp_path / ".best[1].old", "old")
    (tmp_path / ".best1.99-0123abcd.tmp").write_text("another's")
    remove_leftovers(final)
    assert read(final) == ("old", "old")
    make(tmp_path / ".best[1].old", "older")
    remove_leftovers(final)
    assert read(final) == ("old", "old")
    assert names(tmp_path) == [".best1.99-0123abcd.tmp", "best[1]"]


# The real thing

FILL = """
import sys
from pathlib import Path
from edge_far.errors import EdgeFarError
from edge_far.storage import staged_directory, write_atomically
top = Path(sys.argv[1])
for attempt in ("file", "directory"):
    try:
        if attempt == "file":
            write_atomically(top / "state", bytes(4 << 20))
        else:
            with staged_directory(top / "final", replace=True) as directory:
                (directory / "a").write_bytes(bytes(4 << 20))
    except EdgeFarError as error:
        print(error.exit_code, error)
"""


def test_disk_full(tmp_path: Path) -> None:
    """A tmpfs of 1 MiB: needs root to mount, in a mount namespace of its own."""
    (tmp_path / "top").mkdir()
    script = (
        'mount -t tmpfs -o size=1m none "$1" && echo old > "$1/state" && mkdir "$1/final" '
        '&& echo old > "$1/final/a" && "$2" -c "$3" "$1" && cat "$1/state" "$1/final/a" && ls -A "$1"'
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path / "top"), sys.executable, FILL]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if "Operation not permitted" in done.stderr or "permission denied" in done.stderr.lower():
        pytest.skip("needs root to mount a small tmpfs")
    hint = "(free space on this file system or choose another directory, then run the command again)"
    top = tmp_path / "top"
    assert done.stdout.splitlines() == [
        f"74 {top}/state: cannot write: No space left on device {hint}",
        f"74 {top}/final: cannot write: No space left on device {hint}",
        "old",
        "old",
        "final",
        "state",
    ], done.stderr


WRITER = """
import sys
from pathlib import Path
from edge_far import storage
if sys.argv[2] == "renames":
    storage.exchange = lambda first, second: False
top, count = Path(sys.argv[1]), 0
storage.remove_leftovers(top / "final")
print("ready", flush=True)
while True:
    count += 1
    with storage.staged_directory(top / "final", replace=True) as directory:
        for name in ("a", "b"):
            (directory / name).write_text(str(count) * 10_000)
    storage.write_atomically(top / "state", (str(count) * 10_000).encode())
"""


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_kill_at_random_moments(tmp_path: Path, way: str) -> None:
    make(tmp_path / "final", "0")
    write_atomically(tmp_path / "state", b"0")
    for attempt in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), way], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        with writer.stdout:
            assert writer.stdout.readline() == "ready\n"
            time.sleep(random.Random(attempt).uniform(0.005, 0.05))
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        if way == "exchange":
            assert (tmp_path / "final").is_dir()  # at every moment, not only after the leftovers are cleared
        remove_leftovers(tmp_path / "final")
        remove_leftovers(tmp_path / "state")
        assert names(tmp_path) == ["final", "state"]
        contents = [(tmp_path / "final" / "a").read_text(), (tmp_path / "state").read_text()]
        if "b" in names(tmp_path / "final"):
            contents.append((tmp_path / "final" / "b").read_text())
            assert contents[0] == contents[2]
        for content in contents:
            assert content == "0" or content == content[: len(content) // 10_000] * 10_000
