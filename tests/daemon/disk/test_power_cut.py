"""Power cuts on a recorded trace: a sample of what scripts/replay_power_cuts.py does at every operation."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge_far.bundles.bundle import open_bundle
from edge_far.device.run.checkpoint import RunDirectory
from tests.daemon.disk.disk_model import after_power_cut
from tests.daemon.disk.disk_operations import Operation, Sync, Write
from tests.daemon.disk.disk_trace import record
from tests.daemon.disk.power_cut import problem_after, problem_of_next_cycle
from tests.daemon.field import Field, environment

pytestmark = pytest.mark.device
CHECKPOINT = re.compile(rb'"event": "checkpoint".*"step": (\d+)')


def needs_strace() -> None:
    command = ["strace", "-f", "--seccomp-bpf", "-qq", "true"]
    if shutil.which("strace") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("strace is not installed, or not allowed to trace here")


@pytest.fixture(scope="module")
def life(test_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Operation]:
    """A device's life, recorded."""
    needs_strace()
    root = tmp_path_factory.mktemp("recorded")
    command = [
        sys.executable,
        "-m",
        "tests.daemon.disk.disk_workload",
        root,
        test_bundles / "tiny-fp32",
        root / "marks",
    ]
    return record(command, root / "state", root / "marks", environment=environment())


def problems(operations: Sequence[Operation], cuts: Sequence[int], field: Field) -> list[str]:
    """Return what is wrong after power cuts."""
    bundle = open_bundle(field.bundle)
    found = [
        problem_after(operations, cut, crash, cut, field.root, bundle)
        for cut in cuts
        for crash in ("strict", "torn", "journal")
    ]
    return [problem for problem in found if problem]


def test_nothing_acknowledged_is_lost_and_current_is_whole(life: list[Operation], field: Field) -> None:
    cuts = sorted(random.Random(1).sample(range(len(life) + 1), 40))
    assert problems(life, cuts, field) == []


def test_the_next_cycle_succeeds(life: list[Operation], field: Field) -> None:
    for cut in random.Random(2).sample(range(len(life) + 1), 2):
        assert problem_after(life, cut, "torn", cut, field.root, open_bundle(field.bundle)) is None
        assert problem_of_next_cycle(field) is None


def test_it_would_be_noticed_if_nothing_was_synced(life: list[Operation], field: Field) -> None:
    careless = [operation for operation in life if not isinstance(operation, Sync)]
    assert any("lost" in problem or "no release" in problem for problem in problems(careless, [len(careless)], field))


def test_a_checkpoint_that_the_run_log_tells_of_is_there_and_loads(
    test_bundles: Path, tiny_data: Path, tmp_path: Path
) -> None:
    needs_strace()
    top = tmp_path / "top"
    top.mkdir()
    arguments = ["train", test_bundles / "tiny-fp32", "--train", tiny_data, "--out", top / "cycle" / "run"]
    options = ["--checkpoint-steps", "1", "--max-steps", "3", "-q"]
    code = (
        "import os, sys, subprocess; os.mkdir(sys.argv[1]); fd = os.open(sys.argv[1] + '/..', os.O_RDONLY);"
        "os.fsync(fd); subprocess.run([sys.executable, '-m', 'edge_far.cli', *sys.argv[2:]], check=True)"
    )
    command = [sys.executable, "-c", code, top / "cycle", *arguments, *options]
    operations = record(command, top, tmp_path / "marks", environment=environment())
    told = 0
    for cut, operation in enumerate(operations, 1):
        if isinstance(operation, Write) and (found := CHECKPOINT.search(operation.data)):
            told += 1
            folder = tmp_path / f"cut-{cut}"
            folder.mkdir()
            after_power_cut(operations, cut).write_to(folder)
            checkpoint = RunDirectory(folder / "cycle" / "run").load_latest()
            assert checkpoint is not None and checkpoint.state.step == int(found[1])
    assert told >= 3
