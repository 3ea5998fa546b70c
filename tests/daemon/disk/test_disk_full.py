"""A full disk at every write: a clear error, nothing acknowledged lost, and it goes on with new room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = r"""
import os, sys
from pathlib import Path
from edge_far.daemon.intake.ingest import Ingestion
from edge_far.daemon.releases import Releases
from edge_far.daemon.intake.spool import add
from edge_far.daemon.store.examples import Store
from edge_far.errors import StorageError

top = Path(sys.argv[1])
filler = top / "filler"


def fill(free_kib):
    filler.unlink(missing_ok=True)
    found = os.statvfs(top)
    with filler.open("wb") as file:
        file.write(b"x" * max(0, found.f_bavail * found.f_frsize - free_kib * 1024))


(top / "spool").mkdir()
acknowledged, refused = set(), 0
with Store(top / "store.sqlite3") as store:
    for round in range(60):
        text = f"{round} " + "words " * 700
        try:
            add(text, "x", spool=top / "spool")
            acknowledged.add(text)
        except StorageError as error:
            assert "No space left" in str(error), error
            refused += 1
        fill((0, 4, 8, 12, 20, 40, 80)[round % 7])
        try:
            Ingestion(top / "spool", store).run()
        except StorageError as error:
            assert "o space left" in str(error), error
            refused += 1
        if round % 3 == 0:
            filler.unlink()
    filler.unlink(missing_ok=True)
    Ingestion(top / "spool", store).run()
    found = [e.example.text for side in (True, False) for e in store.examples(held_out=side)]
assert sorted(found) == sorted(acknowledged), (len(found), len(acknowledged))

(top / "files").mkdir()
(top / "files" / "model.onnx").write_bytes(b"m" * 100_000)
releases = Releases(top / "model")
first = releases.publish("000000-00000000", top / "files", replaces=None, facts={})
releases.switch(first.id, expected=None)
full = 0
for free in (0, 4, 40, 96, 100, 104, 108):
    fill(free)
    try:
        second = releases.publish("000001-00000001", top / "files", replaces=first.id, facts={})
        releases.switch(second.id, expected=first.id)
    except StorageError as error:
        assert "No space left" in str(error), error
        full += 1
    assert releases.load_current()[1] is None
filler.unlink()
second = releases.publish("000001-00000001", top / "files", replaces=first.id, facts={})
assert releases.switch(second.id, expected=releases.current_id()).id == second.id
print(len(acknowledged), refused, full)
"""


def mount_works() -> bool:
    if os.geteuid() != 0:
        return False
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not mount_works(), reason="a small file system can only be mounted as root")
def test_full_disk(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    top = tmp_path / "small"
    top.mkdir()
    command = f"mount -t tmpfs -o size=4m none {top} && exec {sys.executable} {script} {top}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    acknowledged, refused, full = (int(word) for word in json.loads(f"[{done.stdout.replace(' ', ',')}]"))
    assert acknowledged >= 20 and refused >= 10 and full >= 3
