"""`edge-far choose`: whether the picture can be written is known before the model is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_far.cli import main


@pytest.mark.parametrize(
    ("picture", "code", "told"),
    [
        ("choice.jpg", 64, "--picture: 'choice.jpg' is not a .png file (name it FILE.png)"),
        ("none/choice.png", 74, "none: cannot write: No such file or directory (create the directory first)"),
        ("folder.png", 74, "folder.png: cannot write: Is a directory (name a file in it)"),
        ("choice.png", 66, "none.jsonl: data file does not exist"),
    ],
)
def test_a_picture_that_cannot_be_written(
    picture: str,
    code: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    pytest.importorskip("matplotlib")
    assert main(["choose", "--model", "no such model", "--train", "none.jsonl", "--picture", picture]) == code
    assert told in capsys.readouterr().err
