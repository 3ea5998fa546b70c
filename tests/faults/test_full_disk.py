"""Disk full and read-only file systems: exit 74, the old checkpoint usable, and --resume goes on (needs root)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from tests.faults.processes import events, fail, learners_of, succeed

pytestmark = [pytest.mark.device, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a file system")]

SIZE_KIB = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of SIZE_KIB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "none", place], capture_output=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.decode()}")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(disk: Path, leave_kib: int) -> Path:
    """Write a file that leaves so much space."""
    state = os.statvfs(disk)
    ballast = disk / "ballast"
    ballast.write_bytes(b"\0" * max(0, state.f_bavail * state.f_frsize - leave_kib * 1024))
    return ballast


@pytest.mark.parametrize(("leave_kib", "complete"), [(330, 2), (160, 1), (40, 0)])  # a checkpoint is about 130 KiB
def test_disk_full_while_a_checkpoint_is_written(
    leave_kib: int,
    complete: int,
    tiny_bundle: Callable[[str], Bundle],
    tiny_data: Path,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    bundle = tiny_bundle("tiny-fp32").root
    arguments = ["train", bundle, "--train", tiny_data, "--epochs", "10", "--checkpoint-steps", "2"]
    expected = succeed(*arguments, "--out", tmp_path / "whole")["learners_sha256"]
    ballast = fill(small_disk, leave_kib)
    run = small_disk / "run"
    error = fail(74, *arguments, "--out", run, says="No space left on device")
    assert "free space" in error["hint"] and str(run) in error["where"]
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert not [name for name in kept if name.startswith(".")], "what was half written is removed"
    assert len(kept) == complete
    fail(74, *arguments, "--out", run, "--resume", says="then continue with --resume")
    assert len(list((run / "checkpoints").glob("step-*"))) == complete, "still usable"
    ballast.unlink()
    document = succeed(*arguments, "--out", run, "--resume")
    assert document["steps"] == 30 and document["learners_sha256"] == expected
    assert document["resumed_from_step"] is not None or not kept


def test_disk_full_from_the_beginning(tiny_bundle: Callable[[str], Bundle], tiny_data: Path, small_disk: Path) -> None:
    fill(small_disk, 0)
    arguments = ["train", tiny_bundle("tiny-fp32").root, "--train", tiny_data, "--out", small_disk / "run"]
    fail(74, *arguments, says="No space left on device")


def test_disk_full_while_merging(tiny_bundle: Callable[[str], Bundle], small_disk: Path) -> None:
    fill(small_disk, 64)
    fail(74, "merge", tiny_bundle("tiny-fp32").root, "--out", small_disk / "model", says="No space left on device")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"], "nothing half done is left"


def test_read_only_output(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, small_disk: Path, tmp_path: Path
) -> None:
    bundle = tiny_bundle("tiny-fp32").root
    arguments = ["train", bundle, "--train", tiny_data, "--epochs", "4", "--max-steps", "9"]
    whole = tmp_path / "whole"
    succeed(*arguments, "--out", whole)
    run = small_disk / "run"
    succeed(*arguments, "--out", run)
    (run / "result.json").unlink()  # as if it had not been finished
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    fail(74, *arguments, "--out", small_disk / "new", says="Read-only file system")
    fail(74, *arguments, "--out", run, "--resume", says="Read-only file system")
    fail(74, "merge", bundle, "--out", small_disk / "model", says="Read-only file system")
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    succeed(*arguments, "--out", run, "--resume")
    assert learners_of(run) == learners_of(whole) and len(events(run, "end")) == 2
