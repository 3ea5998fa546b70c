"""`edge-far export`: what can be known of the output is known before the model is read."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edge_far.cli import main
from tests.file_systems import refuse_fsync


def export(out: Path) -> int:
    return main(["export", "--model", "no such model", "--train", "none.jsonl", "--out", str(out)])


def test_an_output_that_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").write_text("mine")
    assert export(tmp_path) == 73
    assert "exists already and is not empty" in capsys.readouterr().err


def test_an_output_in_a_directory_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path / "none" / "bundle") == 74
    assert f"{tmp_path}/none: cannot write: No such file or directory (create the" in capsys.readouterr().err


@pytest.mark.parametrize("files", [False, True])
def test_a_disk_that_fails(
    files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_fsync(monkeypatch, errno.ENOSPC, files=files)
    assert export(tmp_path / "bundle") == 74
    assert f"{tmp_path}: cannot write: No space left on device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tpo-2", "top-0", "top-1.5", "TOP-2"])
def test_a_rung_that_is_none_is_said_before_anything_is_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "no such model", "--train", "none.jsonl", "--out", "bundle", "--method", name]
    assert main(["export", *words]) == 78
    assert (
        f"--method: '{name}' is not a method (one of auto, head, top-K (top-2), far, full)" in capsys.readouterr().err
    )
