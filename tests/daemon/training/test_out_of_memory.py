"""The kernel kills the trainer for memory in a real control group: the daemon lives, says so, and retries smaller."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.field import Field, has_stepped, trainer_of, wait_for
from tests.daemon.training.control_group import LIMIT_MIB, hog, inside, memory_group

pytestmark = [pytest.mark.device, pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a control group")]


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a memory limit."""
    with memory_group() as folder:
        if folder is None:
            pytest.skip("no memory control group can be made here")
        yield folder


def test_an_oom_kill_takes_the_trainer_and_the_cycle_goes_on(field: Field, group: Path) -> None:
    field.profile.write_text(field.profile.read_text().replace("budget_mib: 400", f"budget_mib: {LIMIT_MIB}"))
    field.feed(3000)
    daemon = inside(group, field.command("daemon", "--once"))
    wait_for(lambda: has_stepped(field))
    trainer = trainer_of(daemon)
    taker = hog(group, 75)
    wait_for(lambda: trainer_of(daemon) != trainer)  # not until the next one has a log: it may not live that long
    taker.kill()
    taker.communicate()
    output, errors = daemon.communicate(timeout=120)
    assert daemon.returncode == 0, errors
    cycle = json.loads(output)["cycle"]
    assert "was killed for lack of memory" in cycle["details"]["deaths"][0]
    assert cycle["details"]["micro_batch_limit"] == 2
    assert cycle["outcome"] == "released"
