"""The state directory: modes, the lock, leftovers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge_far.daemon.state import StateDirectory
from edge_far.errors import Deferred, InputMissing


def test_prepare_makes_what_others_may_pass_but_not_list(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    assert stat.S_IMODE(state.root.stat().st_mode) == 0o711
    assert stat.S_IMODE(state.spool.stat().st_mode) == 0o770


def test_only_the_daemon_that_has_the_lock_clears_what_a_killed_one_left(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    for path in (state.status, state.notes, state.metrics):
        path.with_name(f".{path.name}.1-abcd.tmp").write_text("half")
    (state.root / ".cycle.1-abcd.tmp").mkdir()
    state.prepare()  # they may be another daemon's, which is about to rename them
    assert len(list(state.root.rglob(".*.tmp"))) == 4
    with state.lock():
        state.clear_leftovers()
    assert not list(state.root.rglob(".*.tmp"))


def test_one_at_a_time_and_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    with state.lock():
        assert state.running_pid() == os.getpid()
        with pytest.raises(Deferred, match=f"process {os.getpid()}"), state.lock(wait_s=0.1):
            pass
    assert state.running_pid() is None
    code = (
        "import sys, time, pathlib\nfrom edge_far.daemon.state import StateDirectory\n"
        "with StateDirectory(pathlib.Path(sys.argv[1])).lock():\n    print('locked', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"locked\n"
        assert state.running_pid() == process.pid
        process.kill()
        process.wait()
    with state.lock(wait_s=5.0):
        pass


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(Exception, match="cannot write"), StateDirectory(tmp_path).lock():
        pass
    assert target.read_text() == "kept"


def test_missing_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="daemon --once"):
        StateDirectory(tmp_path / "nothing").must_exist()
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    with pytest.raises(InputMissing, match="no state directory here"):
        StateDirectory(run).must_exist()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_gives_new_files_to_the_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    (tmp_path / "new").write_text("x")
    outside = tmp_path.parent / "outside"
    outside.write_text("x")
    (tmp_path / "linked").symlink_to(outside)
    StateDirectory(tmp_path).give_to_owner()
    assert (tmp_path / "new").stat().st_uid == 12345
    assert (tmp_path / "linked").lstat().st_uid == 12345
    assert outside.stat().st_uid == 0
