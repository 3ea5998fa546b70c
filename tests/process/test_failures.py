"""An error that nobody foresaw: exit 70, one line, and a file for a report that holds no text of the user's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_far import __version__, cli
from edge_far.process.failures import as_error


class OfNoTree(BaseException):
    """As the panics of packages that are written in Rust: not an Exception."""


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, words: Sequence[str] = ()) -> int:
    def run(*_: object) -> dict[str, object]:
        raise error

    monkeypatch.setattr(cli._module("profiles"), "run", run)
    return cli.main(["profiles", "list", *words])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge-far"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("first\nsecond"),
        KeyError("x"),
        AttributeError(),
        RecursionError("deep"),
        OfNoTree("panicked"),
        SystemExit(3),
    ],
)
def test_one_line_and_a_file(
    error: BaseException, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error, monkeypatch) == 70
    (line,) = capsys.readouterr().err.splitlines()
    found = re.fullmatch(
        r"edge-far: error: unforeseen (\w+)(: .+)? \(a defect of edge-far: please report it with (.+)\)", line
    )
    assert found is not None and found[1] == type(error).__name__
    (report,) = cache.iterdir()
    assert found[3] == str(report) and report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert "Traceback (most recent call last):" in text and "in run\n    raise error" in text
    assert re.search(rf"^edge-far +{re.escape(__version__)}$", text, re.MULTILINE)
    assert re.search(r"^numpy +\d", text, re.MULTILINE) and re.search(r"^python +3\.", text, re.MULTILINE)


def test_json_has_the_same(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(ValueError("broke"), monkeypatch, ["--json"]) == 70
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["message"], error["exit_code"]) == ("EdgeFarError", "unforeseen ValueError: broke", 70)
    assert str(cache) in error["hint"]


def test_verbose_shows_the_traceback(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(ValueError("broke"), monkeypatch, ["-v"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1].startswith("edge-far: error: unforeseen")


def test_one_place_has_one_file_however_often(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("one", "two"):
        fail_with(ValueError(text), monkeypatch)
    (report,) = cache.iterdir()
    assert "ValueError: two" in report.read_text()


def test_the_command_is_told_without_texts_and_paths(cache: Path) -> None:
    words = ["predict", "my/bundle", "a text of mine", "--top=3", "--run", "my/run"]
    as_error(ValueError("x"), words)
    (report,) = cache.iterdir()
    text = report.read_text()
    assert re.search(r"^command +predict --top --run$", text, re.MULTILINE)
    assert "my/" not in text and "a text of mine" not in text


@pytest.mark.parametrize("where", ["temporary", "nowhere"])
def test_without_a_cache(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "file" if where == "nowhere" else tmp_path
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    told = str(as_error(ValueError("x")))
    assert ("please report it with " + str(tmp_path) in told) == (where == "temporary")
    assert ("-v shows where it came from" in told) == (where == "nowhere")
