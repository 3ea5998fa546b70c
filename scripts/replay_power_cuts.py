"""Record what a device writes and syncs, then cut its power after each of these operations and look what is left.

    .venv-device/bin/python scripts/replay_power_cuts.py --bundle build/test-bundles/tiny-fp32

SIGKILL leaves the page cache alive, a power cut does not. strace records a device's life in all its processes
(tests/daemon/disk/disk_workload.py: first start, examples, three cycles, a rollback); a model of a disk (disk_model.py)
says what can be left at any moment. In each such state the store is opened and the spool read as the daemon does: no
acknowledged example may be lost or doubled or have an old label, SQLite must find the store sound, and `current` must
be complete and the last one told. On a sample a daemon then runs, and its cycle must end well. Needs strace.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bundles.bundle import open_bundle
from tests.daemon.disk.disk_model import Crash
from tests.daemon.disk.disk_operations import Mark, Sync
from tests.daemon.disk.disk_trace import record
from tests.daemon.disk.power_cut import problem_after, problem_of_next_cycle
from tests.daemon.field import Field, environment


def main() -> int:
    """Record, replay, print the table; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="cut after every Nth operation only")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="states of each random disk at each cut")
    parser.add_argument("--cycles", type=int, default=60, metavar="N", help="states in which the next cycle is run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        top, bundle = Path(folder), options.bundle.absolute()
        recorded, marks = top / "recorded", top / "marks"
        recorded.mkdir()
        command = [sys.executable, "-m", "tests.daemon.disk.disk_workload", recorded, bundle, marks]
        operations = record(command, recorded / "state", marks, environment=environment())
        shutil.rmtree(recorded)
        kinds = collections.Counter(type(operation).__name__ for operation in operations)
        print(f"{len(operations)} operations: {dict(kinds)}", file=sys.stderr, flush=True)
        field = Field(_made(top / "replayed"), bundle)
        opened = open_bundle(bundle)
        # A state differs from the one before only where something was written, renamed, synced or said.
        cuts = list(range(0, len(operations) + 1, options.every))
        states = [(cut, crash, seed) for cut in cuts for crash, seed in _disks(options.seeds)]
        chance = random.Random(options.seed)
        sample = set(chance.sample(states, min(options.cycles, len(states))))
        table: dict[str, collections.Counter[str]] = {crash: collections.Counter() for crash in get_args(Crash)}
        problems: list[str] = []
        for number, (cut, crash, seed) in enumerate(states):
            row = table[crash]
            problem = problem_after(operations, cut, crash, options.seed * 1000 + cut * 10 + seed, field.root, opened)
            row["states"] += 1
            row["failed"] += problem is not None
            if problem is None and (cut, crash, seed) in sample:
                try:
                    problem = problem_of_next_cycle(field)
                except AssertionError as error:
                    problem = str(error)
                row["next cycles"] += 1
                row["next cycles failed"] += problem is not None
            if problem is not None:
                before = next((o for o in reversed(operations[:cut]) if not isinstance(o, Mark | Sync)), None)
                problems.append(f"cut {cut}, {crash} {seed}, after {str(before)[:150]}: {problem}")
                print(problems[-1], file=sys.stderr, flush=True)
            if number % 1000 == 999:
                print(f"{number + 1} of {len(states)} states", file=sys.stderr, flush=True)
    result = {
        "operations": len(operations),
        "kinds": dict(kinds),
        "cuts": len(cuts),
        "disks": {crash: dict(row) for crash, row in table.items()},
        "problems": len(problems),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(result, indent=2))
    return int(bool(problems))


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def _disks(seeds: int) -> list[tuple[Crash, int]]:
    return [("strict", 0), *((crash, seed) for crash in ("torn", "journal") for seed in range(seeds))]  # type: ignore[list-item]


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
