"""fsync where the file system refuses it, as network and shared folders do: one warning, and the work goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_far.disk.directory_moves import fsync_directory
from edge_far.errors import StorageError
from edge_far.storage import check_output, replace_directory, staged_directory, write_atomically
from tests.file_systems import refuse_fsync
from tests.tiny_cases import REPOSITORY


@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "ENOTTY"])
def test_refused_is_one_warning(
    name: str, files: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_fsync(monkeypatch, getattr(errno, name), files=files)
    check_output(tmp_path / "final")
    for content in (b"1", b"2"):
        write_atomically(tmp_path / "state", content)
        with staged_directory(tmp_path / "final", replace=True) as directory:
            (directory / "a").write_bytes(content)
    assert (tmp_path / "state").read_bytes() == (tmp_path / "final" / "a").read_bytes() == b"2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final", "state"]
    (line,) = capsys.readouterr().err.splitlines()
    reason = os.strerror(getattr(errno, name))
    assert line.startswith("warning: ") and f"refuses fsync ({reason}): a power cut may undo" in line


@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT", "EROFS", "EBADF"])
def test_failed_is_an_error_and_known_before_the_work(
    name: str, files: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    number = getattr(errno, name)
    refuse_fsync(monkeypatch, number, files=files)
    with pytest.raises(StorageError, match=f"cannot write: {os.strerror(number)}"):
        check_output(tmp_path / "final")
    with pytest.raises(StorageError), staged_directory(tmp_path / "final") as directory:
        (directory / "a").write_bytes(b"1")
    with pytest.raises(OSError, match=os.strerror(number)):
        fsync_directory(tmp_path)
    assert capsys.readouterr().err == ""


def test_a_failed_fsync_keeps_the_old_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("new", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text(name)
    refuse_fsync(monkeypatch, errno.EIO)
    with pytest.raises(StorageError, match="the storage device reports errors"):
        replace_directory(tmp_path / "new", tmp_path / "final")
    assert (tmp_path / "final" / "a").read_text() == "final"


def test_everything_that_is_made_durable_goes_this_way() -> None:
    calling = [p.name for p in (REPOSITORY / "edge_far").rglob("*.py") if "os.fsync(" in p.read_text(encoding="utf-8")]
    assert sorted(calling) == ["disks.py", "durability.py"]  # the doctor tries whether a disk refuses it
