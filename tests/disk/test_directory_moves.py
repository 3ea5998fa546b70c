"""Directories that cannot be renamed (EXDEV), as in a lower layer of an overlay: copied, and never lost on the way."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.disk import directory_moves
from edge_far.disk.directory_moves import discard_directory, move_directory
from edge_far.errors import StorageError
from edge_far.storage import remove_leftovers, replace_directory, staged_directory
from tests.faults.processes import ENVIRONMENT
from tests.file_systems import LowerLayer


def make(directory: Path, content: str) -> Path:
    (directory / "deep").mkdir(parents=True)
    (directory / "a").write_text(content)
    (directory / "deep" / "b").write_text(content)
    (directory / "a").chmod(0o600)
    return directory


def read(directory: Path) -> tuple[str, str]:
    return (directory / "a").read_text(), (directory / "deep" / "b").read_text()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> LowerLayer:
    return LowerLayer(monkeypatch)


def test_replace(tmp_path: Path, layer: LowerLayer) -> None:
    layer.add(make(tmp_path / "final", "0"))
    for content in "12":
        with staged_directory(tmp_path / "final", replace=True) as directory:
            make(directory / "x", content)
        assert read(tmp_path / "final" / "x") == (content, content) and names(tmp_path) == ["final"]


def test_move_and_discard(tmp_path: Path, layer: LowerLayer) -> None:
    layer.add(make(tmp_path / "source", "0"))
    move_directory(tmp_path / "source", tmp_path / "target")
    assert read(tmp_path / "target") == ("0", "0") and (tmp_path / "target" / "a").stat().st_mode & 0o777 == 0o600
    discard_directory(layer.add(make(tmp_path / "gone", "1")))
    discard_directory(make(tmp_path / "gone", "1"))
    assert names(tmp_path) == ["target"]


class Killed(BaseException):
    """The process is gone: nothing after this runs, no handler either."""


def kill_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the `number`-th change of a name, and every later one, raise Killed."""
    count = 0

    def counted(genuine: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count >= number:
                raise Killed
            return genuine(*arguments, **options)

        return call

    for name in ("rename", "unlink", "rmdir", "mkdir"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))


def test_killed_at_every_step_the_content_is_the_old_or_the_new(
    tmp_path: Path, layer: LowerLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for number in range(1, 100):
        final = tmp_path / str(number) / "final"
        layer.add(make(final, "old"))
        killed = False
        with monkeypatch.context() as patch:
            kill_at(number, patch)
            try:
                with staged_directory(final, replace=True) as directory:
                    (directory / "a").write_text("new")
            except Killed:
                killed = True
        remove_leftovers(final)
        assert names(final.parent) == ["final"]
        found.append((final / "a").read_text())
        assert found[-1] == "new" or read(final) == ("old", "old")
        if not killed:
            break
    assert len(found) > 12 and found == sorted(found, reverse=True) and {*found} == {"old", "new"}


def test_a_failure_half_way_brings_the_old_content_back(
    tmp_path: Path, layer: LowerLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer.add(make(tmp_path / "final", "old"))
    genuine = shutil.rmtree

    def half(path: Path, **options: bool) -> None:
        if path == tmp_path / "final" and not options:
            (path / "a").unlink()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        genuine(path, **options)

    monkeypatch.setattr(directory_moves.shutil, "rmtree", half)
    with pytest.raises(StorageError, match="Input/output error"):
        replace_directory(make(tmp_path / "new", "new"), tmp_path / "final")
    assert read(tmp_path / "final") == ("old", "old") and names(tmp_path) == ["final"]


@pytest.mark.parametrize("left", ["whole", "half", "nothing"])
def test_a_complete_copy_counts_more_than_what_is_left(left: str, tmp_path: Path, layer: LowerLayer) -> None:
    make(tmp_path / ".final.copy", "old")
    if left != "nothing":
        layer.add(make(tmp_path / "final", "old"))
    if left == "half":
        (tmp_path / "final" / "a").unlink()
    remove_leftovers(tmp_path / "final")
    assert read(tmp_path / "final") == ("old", "old") and names(tmp_path) == ["final"]


OVERLAY = """
import os, sys
from pathlib import Path
from edge_far.disk.directory_moves import discard_directory, move_directory
from edge_far.storage import staged_directory
top = Path(sys.argv[1])
try:
    os.rename(top / "best", top / "other")
except OSError as error:
    print(error.strerror)
for content in "12":
    with staged_directory(top / "best", replace=True) as directory:
        (directory / "a").write_text(content)
    print((top / "best" / "a").read_text(), sorted(path.name for path in top.iterdir()))
move_directory(top / "release", top / "aside")
discard_directory(top / "gone")
print((top / "aside" / "a").read_text(), sorted(path.name for path in top.iterdir()))
"""


def test_a_real_overlay(tmp_path: Path) -> None:
    """Needs root to mount, in a mount namespace of its own; the overlay lies on a tmpfs, for it may not lie on one."""
    script = (
        'mount -t tmpfs none "$1" && cd "$1" && mkdir -p lower/best lower/release lower/gone upper work top '
        "&& for name in best release gone; do echo old > lower/$name/a; done "
        "&& mount -t overlay overlay -o redirect_dir=off,lowerdir=lower,upperdir=upper,workdir=work top "
        '&& "$2" -c "$3" top'
    )
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, OVERLAY]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if any(word in done.stderr.lower() for word in ("mount:", "not permitted", "permission denied")):
        pytest.skip("needs root to mount an overlay")
    assert done.stdout.splitlines() == [
        "Invalid cross-device link",
        "1 ['best', 'gone', 'release']",
        "2 ['best', 'gone', 'release']",
        "old",
        " ['aside', 'best']",
    ], done.stderr
