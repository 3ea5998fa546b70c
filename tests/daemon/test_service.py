"""The daemon that loops by itself: small while idle, reloads, ends quickly, outlives failing ticks."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_far.daemon.state import StateDirectory
from tests.daemon.field import Field, environment, wait_for

pytestmark = pytest.mark.device
IDLE_MIB = 40


@pytest.fixture
def daemon(field: Field) -> Iterator[subprocess.Popen[str]]:
    """A looping daemon after its first look."""
    command = field.command("daemon", "--interval-minutes", "0.01")
    process = subprocess.Popen(
        command, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()}
    )
    wait_for(lambda: (field.state / "model" / "current").exists() and (field.state / "status.json").exists())
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def told(field: Field) -> dict[str, dict[str, object]]:
    """Return the notes by topic, as status.json has them for everybody."""
    document = json.loads((field.state / "status.json").read_bytes())
    return {note["topic"]: note for note in document["notes"]}


def test_idle_memory_and_a_quick_end(field: Field, daemon: subprocess.Popen[str]) -> None:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
    assert found and int(found[1]) < IDLE_MIB * 1024, f"{int(found[1]) / 1024:.1f} MiB" if found else None
    began = time.monotonic()
    daemon.terminate()
    assert daemon.wait(15) == 75
    assert time.monotonic() - began < 10


def test_sighup_loads_the_profile_and_keeps_the_old_one_when_it_is_wrong(
    field: Field, daemon: subprocess.Popen[str]
) -> None:
    good = field.profile.read_text()
    field.profile.write_text(good.replace("budget_mib: 400", "budget_mib: none"))
    daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: "profile" in told(field))
    assert "memory.budget_mib" in str(told(field)["profile"]["text"])
    field.profile.write_text(good)
    daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: "profile" not in told(field))
    assert daemon.poll() is None


def test_a_loop_trains_what_arrives(field: Field, daemon: subprocess.Popen[str]) -> None:
    field.feed(600)
    wait_for(lambda: field.current().startswith("000001-"))


def test_a_tick_that_fails_is_told_and_the_next_one_tries_again(field: Field, daemon: subprocess.Popen[str]) -> None:
    taking = field.state / "spool" / ".ingest"
    taking.rmdir()
    taking.write_text("in its way")
    wait_for(lambda: "error" in told(field))
    taking.unlink()
    wait_for(lambda: "error" not in told(field))
    assert daemon.poll() is None


def test_a_bundle_that_was_replaced_is_the_next_looks(field: Field, test_bundles: Path) -> None:
    """What a waiting daemon opened once, it goes on with only while that lies on the disk."""
    field.bundle = shutil.copytree(field.bundle, field.root / "bundle")
    command = field.command("daemon", "--interval-minutes", "0.01")
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()}
    process = subprocess.Popen(command, **streams)
    try:
        wait_for(lambda: (field.state / "model" / "current").exists() and (field.state / "status.json").exists())
        factory = field.current()
        field.bundle.rename(field.root / "old")
        shutil.copytree(test_bundles / "tiny-int8", field.bundle)
        wait_for(lambda: field.current() != factory)  # the factory release of the new one
    finally:
        process.kill()
        process.wait()


def test_a_wrong_profile_ends_it_with_78_and_status_says_why(field: Field) -> None:
    field.profile.write_text("memory: {budget_mib: 1}\n")
    field.once(status=78)
    status = field.status()
    assert status["state"] == "broken" and "budget_mib" in status["summary"]
    assert field.run("status", "--check", status=69)["state"] == "broken"


def test_a_daemon_that_waits_in_vain_leaves_the_files_of_the_one_at_work(field: Field) -> None:
    state = StateDirectory(field.state)
    state.prepare()
    half_written = [state.root / f".{name}.1-abcd.tmp" for name in ("cycle", "status.json", "notes.json")]
    for path in half_written:
        path.write_text("half")
    with state.lock():
        assert "is at work here" in field.once(status=75)["error"]["message"]
    assert all(path.exists() for path in half_written)
    field.once(status=75)
    assert not any(path.exists() for path in half_written)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_leaves_no_file_of_its_own_in_the_services_directory(field: Field) -> None:
    StateDirectory(field.state).prepare()
    os.chown(field.state, 12345, 12345)
    field.once(status=75)
    paths = [field.state, *field.state.rglob("*")]
    assert field.state / "store.sqlite3" in paths
    assert {path.lstat().st_uid for path in paths} == {12345}


def test_status_tells_the_limit_of_the_daemon_and_not_its_own(released: Field) -> None:
    written = json.loads((released.state / "status.json").read_text())
    assert "memory_limit_mib" in written["daemon"]["settings"]
    written["daemon"]["settings"]["memory_limit_mib"] = 48.0
    (released.state / "status.json").write_text(json.dumps(written))
    condition = next(c for c in released.status()["conditions"] if c["name"] == "memory limit")
    assert (condition["ok"], condition["measured"]) == (False, 48.0)


def test_an_error_that_nobody_foresaw_is_told_by_status_too(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_far import cli
    from edge_far.daemon.service import Service

    def defective(service: Service) -> None:
        raise KeyError("defect")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(Service, "_ingest", defective)
    before = os.umask(0o022)
    try:
        assert cli.main(field.command("daemon", "--once")[3:]) == 70
    finally:
        os.umask(before)
    status = field.status()
    assert status["state"] == "broken" and "unforeseen KeyError: 'defect'" in status["summary"]
    (report,) = (tmp_path / "cache" / "edge-far").glob("edge-far-failure-*.txt")
    assert str(report) in status["advice"][0]
