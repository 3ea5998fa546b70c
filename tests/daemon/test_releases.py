"""Releases: complete or absent, verified at each use, switched in one step, with a way back."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from edge_far.daemon import releases as module
from edge_far.daemon.release_files import Release, ReleaseDamaged
from edge_far.daemon.releases import Releases
from edge_far.errors import DataError, EdgeFarError, InputMissing, StorageError


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    return Releases(tmp_path / "model")


def source(tmp_path: Path, text: str) -> Path:
    directory = tmp_path / f"source-{text}"
    directory.mkdir(exist_ok=True)
    (directory / "model.onnx").write_bytes(text.encode() * 1000)
    (directory / "labels.json").write_text('["a"]')
    return directory


def make(releases: Releases, tmp_path: Path, text: str) -> Release:
    files = source(tmp_path, text)
    base = releases.current_id()
    release = releases.publish(releases.next_id(files), files, replaces=base, facts={"text": text})
    return releases.switch(release.id, expected=base)


def test_publish_and_switch(releases: Releases, tmp_path: Path) -> None:
    assert releases.current_id() is None
    release = make(releases, tmp_path, "factory")
    assert release.sequence == 0 and release.replaces is None and release.facts == {"text": "factory"}
    assert releases.current_id() == release.id and releases.load_current() == (release, None)
    current = releases.directory / "current"
    assert (current / "model.onnx").read_bytes() == b"factory" * 1000
    listed = json.loads((current / "manifest.json").read_text())["files"]["model.onnx"]
    assert listed == {"bytes": 7000, "sha256": hashlib.sha256(b"factory" * 1000).hexdigest()}


def test_application_may_read_and_nobody_else_write(releases: Releases, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        make(releases, tmp_path, "a")
    finally:
        os.umask(previous)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (releases.directory / "current").iterdir()}
    assert set(modes.values()) == {0o644}
    assert stat.S_IMODE((releases.directory / "current").stat().st_mode) == 0o755


def test_publish_again_is_the_same_release(releases: Releases, tmp_path: Path) -> None:
    files = source(tmp_path, "a")
    id = releases.next_id(files)
    first = releases.publish(id, files, replaces=None, facts={})
    inode = (first.path / "model.onnx").stat().st_ino
    assert releases.publish(id, files, replaces=None, facts={"later": True}) == first
    assert (first.path / "model.onnx").stat().st_ino == inode
    (first.path / "model.onnx").write_bytes(b"damaged")
    again = releases.publish(id, files, replaces=None, facts={})
    assert again.path == first.path and releases.verify(id).files == ("labels.json", "model.onnx")


def change_a_byte(path: Path) -> None:
    content = bytearray((path / "model.onnx").read_bytes())
    content[5] ^= 1
    (path / "model.onnx").write_bytes(content)


def rewrite(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def link_elsewhere(path: Path) -> None:
    copy = path.parent.parent.parent / "copy"
    (path / "model.onnx").rename(copy)
    (path / "model.onnx").symlink_to(copy)


def pipe(path: Path) -> None:
    (path / "model.onnx").unlink()
    os.mkfifo(path / "model.onnx")


ENTRY = {"sha256": "0" * 64, "bytes": 1}
DAMAGES = {
    "byte": (change_a_byte, "content has changed"),
    "short": (lambda p: (p / "model.onnx").write_bytes(b"x"), "has 1 bytes instead of"),
    "gone": (lambda p: (p / "model.onnx").unlink(), "cannot be opened"),
    "symlink": (link_elsewhere, "cannot be opened"),
    "hard link": (lambda p: os.link(p / "model.onnx", p.parent.parent / "other"), "with one name"),
    "pipe": (pipe, "not a regular file"),
    "writable": (lambda p: (p / "model.onnx").chmod(0o666), "only its owner may write"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "cannot be opened"),
    "empty manifest": (lambda p: (p / "manifest.json").write_bytes(b""), "is broken"),
    "list": (lambda p: (p / "manifest.json").write_bytes(b"[]"), "is broken"),
    "huge": (lambda p: (p / "manifest.json").write_bytes(b" " * (2 << 20)), "too large"),
    "newer": (lambda p: rewrite(p, format=2), "newer edge-far"),
    "other id": (lambda p: rewrite(p, id="000009-00000000"), "another release"),
    "traversal": (lambda p: rewrite(p, files={"../x": ENTRY}), "unsafe file"),
    "absolute": (lambda p: rewrite(p, files={"/etc/passwd": ENTRY}), "unsafe file"),
    "hidden": (lambda p: rewrite(p, files={".x": ENTRY}), "unsafe file"),
    "deep": (lambda p: (p / "manifest.json").write_bytes(b"[" * 100_000), "is broken"),
    "no time": (lambda p: rewrite(p, created_s=10**400), "is broken"),
    "NaN": (lambda p: rewrite(p, created_s=float("nan")), "is broken"),
    "no facts": (lambda p: rewrite(p, facts=[]), "is broken"),
    "odd figures": (lambda p: rewrite(p, facts={"held_out": {"candidate_accuracy": "good"}}), "is broken"),
    "replaces": (lambda p: rewrite(p, replaces="../.."), "cannot be"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_current_falls_back_and_says_so(releases: Releases, tmp_path: Path, damage: str) -> None:
    factory = make(releases, tmp_path, "factory")
    second = make(releases, tmp_path, "second")
    third = make(releases, tmp_path, "third")
    harm, reason = DAMAGES[damage]
    harm(third.path)
    with pytest.raises(ReleaseDamaged, match=reason):
        releases.verify(third.id)
    release, note = releases.load_current()
    assert release == second and releases.current_id() == second.id
    assert note is not None and reason in note and f"went back to release {second.id}" in note
    assert (releases.directory / "releases" / f".corrupt-{third.id}-1").is_dir()
    assert releases.load_current() == (second, None)
    change_a_byte(second.path)
    assert releases.load_current()[0] == factory
    change_a_byte(factory.path)
    with pytest.raises(ReleaseDamaged, match="no good release is left"):
        releases.load_current()
    assert make(releases, tmp_path, "new").sequence == 3  # the numbers of damaged ones are not used again


@pytest.mark.parametrize("target", ["../../etc", "/etc", "releases/../x", "releases/000000-zz", "nowhere"])
def test_current_that_leads_elsewhere(releases: Releases, tmp_path: Path, target: str) -> None:
    factory = make(releases, tmp_path, "factory")
    (releases.directory / "current").unlink()
    (releases.directory / "current").symlink_to(target)
    with pytest.raises(ReleaseDamaged, match="leads to"):
        releases.current_id()
    release, note = releases.load_current()
    assert release == factory and note is not None and "leads to" in note


def test_missing_current_finds_the_latest(releases: Releases, tmp_path: Path) -> None:
    make(releases, tmp_path, "factory")
    second = make(releases, tmp_path, "second")
    (releases.directory / "current").unlink()
    release, note = releases.load_current()
    assert release == second and note is not None and "no release is current" in note


def test_rollback_follows_what_was_replaced(releases: Releases, tmp_path: Path) -> None:
    factory = make(releases, tmp_path, "factory")
    second = make(releases, tmp_path, "second")
    make(releases, tmp_path, "bad")
    assert releases.rollback() == second
    fourth = make(releases, tmp_path, "fourth")
    assert fourth.replaces == second.id and fourth.sequence == 3
    assert releases.rollback() == second  # not the bad one, though it is newer
    assert releases.rollback() == factory
    with pytest.raises(InputMissing, match=r"no earlier release .'edge-far releases' shows"):
        releases.rollback()
    assert releases.current_id() == factory.id


def test_prune_keeps_current_previous_and_factory(releases: Releases, tmp_path: Path) -> None:
    made = [make(releases, tmp_path, str(number)) for number in range(5)]
    (releases.directory / "releases" / ".000009-00000000.1-2.tmp").mkdir()
    assert releases.prune() == [made[1].id, made[2].id]
    assert releases.ids() == [made[0].id, made[3].id, made[4].id]
    assert {p.name for p in (releases.directory / "releases").iterdir()} == set(releases.ids())
    assert releases.rollback() == made[3] and releases.rollback() == made[0]


def test_switch_refuses_when_someone_else_switched(releases: Releases, tmp_path: Path) -> None:
    make(releases, tmp_path, "factory")
    base = make(releases, tmp_path, "second").id
    files = source(tmp_path, "candidate")
    candidate = releases.publish(releases.next_id(files), files, replaces=base, facts={})
    rolled = releases.rollback()
    with pytest.raises(DataError, match=f"current release is {rolled.id}, not {base}"):
        releases.switch(candidate.id, expected=base)
    assert releases.current_id() == rolled.id
    assert releases.switch(candidate.id, expected=rolled.id) == candidate
    assert releases.switch(candidate.id, expected=rolled.id) == candidate  # done before: idempotent


@pytest.mark.parametrize("name", ["../../etc", "", "000000", "x" * 200, "000000-0000000g"])
def test_names_that_are_no_ids(releases: Releases, name: str) -> None:
    with pytest.raises(InputMissing, match="not the ID"):
        releases.verify(name)


@pytest.mark.parametrize("unsafe", ["link", "directory", "manifest", "empty", "hidden"])
def test_unsafe_sources(releases: Releases, tmp_path: Path, unsafe: str) -> None:
    files = tmp_path / "files"
    files.mkdir()
    if unsafe == "link":
        (files / "model.onnx").symlink_to("/etc/passwd")
    elif unsafe == "directory":
        (files / "sub").mkdir()
    elif unsafe != "empty":
        (files / {"manifest": "manifest.json", "hidden": ".x"}[unsafe]).write_text("x")
    with pytest.raises(DataError):
        releases.publish("000000-00000000", files, replaces=None, facts={})
    assert releases.ids() == []


def test_every_interruption_leaves_old_or_new(
    releases: Releases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail at each fsync and rename in turn: `current` is always complete, and the next try succeeds."""
    factory = make(releases, tmp_path, "factory")
    files = source(tmp_path, "candidate")
    id = releases.next_id(files)
    seen: set[str] = set()
    for cut in range(40):
        calls = 0
        genuine = {"fsync": os.fsync, "rename": os.rename, "replace": os.replace}

        def count(name: str, *arguments: object, cut: int = cut, genuine: dict = genuine) -> None:
            nonlocal calls
            calls += 1
            if calls == cut + 1:
                raise OSError(28, "No space left on device")
            genuine[name](*arguments)

        with monkeypatch.context() as patch:
            for name in genuine:
                patch.setattr(os, name, lambda *a, n=name: count(n, *a))
            try:
                releases.publish(id, files, replaces=factory.id, facts={})
                releases.switch(id, expected=factory.id)
                finished = True
            except StorageError as error:
                assert "No space left" in str(error)
                finished = False
        release, note = releases.load_current()
        assert note is None
        seen.add(release.id)
        if finished:
            break
    assert finished and cut >= 5 and seen == {factory.id, id}


def test_readers_never_see_anything_but_a_complete_release(releases: Releases, tmp_path: Path) -> None:
    make(releases, tmp_path, "0")
    stop = threading.Event()
    failures: list[EdgeFarError | OSError] = []

    def read() -> None:
        while not stop.is_set():
            try:
                id = releases.current_id()
                assert id is not None
                releases.verify(id)
            except (EdgeFarError, OSError) as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 30):
        make(releases, tmp_path, str(number))
    stop.set()
    reader.join()
    assert failures == []


def test_read_only_directory(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        module.Releases(Path("/proc/self/model"))
