"""A full disk at every stage of a cycle: nothing acknowledged is lost, `current` is whole, and space heals it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_far.daemon.releases import Releases
from edge_far.daemon.store.examples import Store
from tests.daemon.field import Field, environment

pytestmark = [pytest.mark.device, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")]

AMPLE_KIB = 65536


@pytest.fixture
def small(begun: Field, tmp_path: Path) -> Iterator[Field]:
    """A device with a factory release, whose state directory is a file system of its own."""
    state = tmp_path / "state"
    state.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={AMPLE_KIB}k", "none", state], check=False)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    field = begun.copied_to(tmp_path)
    field.profile.write_text(field.profile.read_text().replace("min_free_mib: 1}", "min_free_mib: 0}"))
    yield field
    subprocess.run(["umount", "--lazy", field.state], check=True)


def limit(field: Field, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", field.state], check=True)


def used_kib(field: Field) -> int:
    found = shutil.disk_usage(field.state)
    return found.used // 1024


@pytest.mark.parametrize("spare_kib", [4, 64, 150, 300, 400, 500, 700, 900, 1200])
def test_a_disk_that_fills_up_in_a_cycle(small: Field, spare_kib: int) -> None:
    small.feed(600)
    limit(small, used_kib(small) + spare_kib)
    done = subprocess.run(
        small.command("daemon", "--once"), capture_output=True, text=True, check=False, env=environment(), timeout=120
    )
    assert done.returncode in (0, 74, 75), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    if done.returncode == 74:
        assert "no space left" in done.stderr.lower(), done.stderr
    releases = Releases(small.state / "model")
    assert releases.verify(releases.current_id() or "")
    limit(small, AMPLE_KIB)
    # Only the last step, the copy of the store, may fail when the release is there already.
    small.once(status=75 if small.current().startswith("000001-") else 0)
    assert small.current().startswith("000001-")
    assert (small.state / "store.sqlite3.backup").stat().st_size and not (small.state / "cycle").exists()
    with Store(small.state / "store.sqlite3") as store:
        assert store.counts().examples == len(set(texts(small)))
    assert small.status()["state"] == "healthy"
    assert not list(Path(small.state).glob(".*.tmp"))


def texts(field: Field) -> list[str]:
    """Return the texts that Field.feed(600) drops."""
    copy = Field.__new__(Field)
    copy.__dict__.update(field.__dict__)
    copy.state = field.root / "copy"
    copy.feed(600)
    (file,) = (copy.state / "spool").glob("*.jsonl")
    return [json.loads(line)["text"] for line in file.read_text().splitlines()]
