"""The kernel kills the trainer for memory in a real control group: the daemon lives, says so, and retries smaller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon.field import Field, environment, has_stepped, wait_for

pytestmark = [pytest.mark.device, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a control group")]
LIMIT_MIB = 100
HOG = "import time; x = bytearray({size} << 20); x[::4096] = b'x' * len(x[::4096]); time.sleep(120)"


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a memory limit, version 1 or 2."""
    folder = _make_group()
    if folder is None:
        pytest.skip("no memory control group can be made here")
    yield folder
    wait_for(lambda: not (folder / "cgroup.procs").read_text(), 10)
    folder.rmdir()


def _make_group() -> Path | None:
    for top, name in ((Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"), (Path("/sys/fs/cgroup"), "memory.max")):
        folder = top / f"edge-far-test-{os.getpid()}"
        with suppress(OSError):
            folder.mkdir()
            (folder / name).write_text(str(LIMIT_MIB << 20))
            return folder
    return None


def inside(group: Path, command: list[str]) -> subprocess.Popen[str]:
    """Start a command in the group."""
    script = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", script, "sh", *command],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()},
    )


def test_an_oom_kill_takes_the_trainer_and_the_cycle_goes_on(field: Field, group: Path) -> None:
    field.profile.write_text(field.profile.read_text().replace("budget_mib: 400", f"budget_mib: {LIMIT_MIB}"))
    field.feed(3000)
    daemon = inside(group, field.command("daemon", "--once"))
    wait_for(lambda: has_stepped(field))
    hog = inside(group, [sys.executable, "-c", HOG.format(size=75)])
    wait_for(lambda: field.run_log.parent.name == "run-2" or daemon.poll() is not None)
    hog.kill()
    hog.communicate()
    output, errors = daemon.communicate(timeout=120)
    assert daemon.returncode == 0, errors
    cycle = json.loads(output)["cycle"]
    assert "was killed for lack of memory" in cycle["details"]["deaths"][0]
    assert cycle["details"]["micro_batch_limit"] == 2
    assert cycle["outcome"] == "released"
