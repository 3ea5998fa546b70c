"""SIGKILL the daemon in each of its phases, at random moments, and look whether anything was lost or left half done.

    .venv-device/bin/python scripts/kill_daemon.py --bundle build/test-bundles/tiny-fp32 --rounds 300

Each round hands examples over as an application does (durable once acknowledged), starts `edge-far daemon --once`,
waits for the phase that it aims at, and kills the daemon a random time later; its children die with it. A cycle that
was interrupted is taken up again in the next round. Then, without repairing anything: every example that was
acknowledged is in the store or in a spool file, once; SQLite finds the store sound; `current` names a release whose
every hash is right and that ONNX Runtime loads. At the end a daemon that nobody kills ends two cycles. What a power
cut does beyond this is replay_power_cuts.py's business, and kill_sweep.py kills before each single operation.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.daemon.intake import spool
from edge_far.daemon.store.examples import Store
from tests.daemon.disk.disk_workload import made
from tests.daemon.field import PROFILE, Field, environment
from tests.daemon.invariants import Ledger, current_problem, examples_in, store_problem

# In the order of a cycle, and up to how long after its beginning the kill comes, in s.
PHASES = {
    "ingest": 0.05,
    "start of training": 0.6,
    "training": 0.6,
    "checkpoint": 0.01,
    "merge": 0.6,
    "gate": 0.5,
    "release": 0.06,
    "end": 0.06,
}
POLL_S = 0.0005
EASY = PROFILE.replace("min_new_examples: 10}", "min_new_examples: 1, tolerance_percent: 50}")


def main() -> int:
    """Run the rounds; return 1 as soon as one finds something wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        field = Field(Path(folder), options.bundle.absolute())
        field.profile.write_text(EASY)  # a release at the end of nearly every cycle
        return run(field, options.rounds, random.Random(options.seed))


def run(field: Field, rounds: int, chance: random.Random) -> int:
    """Run the rounds on one device."""
    began = time.monotonic()
    ledger = Ledger()
    field.once(status=75)
    hand_over_file(field, ledger, chance, 400)
    field.once()
    killed: collections.Counter[str] = collections.Counter()
    ended = 0
    while killed.total() < rounds:
        # The phase that was hit least often, so that those that are over quickly get their share.
        aim = min(PHASES, key=lambda phase: (killed[phase], chance.random()))
        hand_over(field, ledger, chance, 20 if aim == "ingest" else 4)
        hit = kill_in(field, aim, chance)
        if hit is None:
            ended += 1
        else:
            killed[hit] += 1
        problem = problem_of(field, ledger)
        if problem:
            print(f"kill {killed.total()}, in '{hit}': {problem}", file=sys.stderr)
            return 1
        if killed.total() % 10 == 0:
            print(f"{killed.total()} of {rounds}: {dict(killed)}", file=sys.stderr, flush=True)
    for _ in range(2):  # the cycle under way, and then one of its own
        hand_over(field, ledger, chance, 40)
        document = field.once()
    problem = problem_of(field, ledger)
    with Store(field.state / "store.sqlite3") as store:
        counts = store.counts()
    result = {
        "kills": killed.total(),
        "killed_while": dict(killed),
        "ended_before": ended,
        "acknowledged": len(ledger.acknowledged),
        "in_use": counts.examples,
        "set_aside": counts.set_aside,
        "last_cycle": document["cycle"]["outcome"],
        "cycles": document["cycle"]["id"],
        "problem": problem,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(result, indent=2))
    return int(problem is not None or counts.set_aside > 0)


def kill_in(field: Field, aim: str, chance: random.Random) -> str | None:
    """Start the daemon, kill it in a phase and return the phase that was hit; None where it ended before."""
    start = Start(field)
    process = subprocess.Popen(
        field.command("daemon", "--once"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    while process.poll() is None and not start.has_begun(aim):
        time.sleep(POLL_S)
    with suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0.0, PHASES[aim]))
    if process.poll() is not None:
        return None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return start.moment()


class Start:
    """What is there when a daemon is started, to tell what it does from what others left behind."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._began_ns = time.time_ns()
        self._current = field.current()
        self._steps = steps(field)
        self._cycle = state_of(field)

    def has_begun(self, phase: str) -> bool:
        """Return whether the daemon has begun a phase, from the files that it writes."""
        state, cycle = self._field.state, self._field.state / "cycle"
        if phase == "ingest":
            return self._wrote(state / "lock") and any(os.scandir(state / "spool" / ".ingest"))
        if phase == "start of training":
            return self._wrote(cycle / "train.json")
        if phase == "training":
            return self._wrote(cycle / "train.json") and steps(self._field) > self._steps
        if phase == "checkpoint":
            return any(map(self._wrote, cycle.glob("run-*/checkpoints/.step-*.tmp")))
        if phase in ("merge", "gate"):
            return self._wrote(cycle / {"merge": "merge.json", "gate": "decide.json"}[phase])
        at_work = self._wrote(state / "status.json")  # with what was left over
        if phase == "release":
            return (at_work or self._wrote(cycle / "decision.json")) and state_of(self._field) == "decided"
        return self._field.current() != self._current or (at_work and self._cycle == "released")

    def moment(self) -> str:
        """Return which phase the daemon was in when it was killed."""
        field, cycle = self._field, self._field.state / "cycle"
        state = state_of(field)
        if any((field.state / "spool" / ".ingest").iterdir()):
            return "ingest"
        if state == "finished":
            return "end" if cycle.exists() else "opening, collecting"
        if state not in ("collected", "training"):
            return {"trained": "gate", "decided": "release"}.get(state, "end")
        if any(cycle.glob("run-*/result.json")):
            return "merge"
        if any(map(self._wrote, cycle.glob("run-*/checkpoints/.step-*.tmp"))):
            return "checkpoint"
        return "training" if steps(field) > self._steps else "start of training"

    def _wrote(self, path: Path) -> bool:
        try:
            return path.stat().st_mtime_ns > self._began_ns
        except OSError:
            return False


def steps(field: Field) -> int:
    """Return how many steps the log of the run under way tells of."""
    with suppress(OSError):
        return field.run_log.read_bytes().count(b'"event": "step"')
    return 0


def state_of(field: Field) -> str:
    """Return the state of the newest cycle."""
    address = f"file:{field.state / 'store.sqlite3'}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        row = connection.execute("SELECT state FROM cycles ORDER BY id DESC LIMIT 1").fetchone()
    return str(row[0]) if row else "finished"


def hand_over(field: Field, ledger: Ledger, chance: random.Random, count: int) -> None:
    """Add examples one by one, some of them corrections or repetitions of earlier ones."""
    for _ in range(count):
        text, label = made(chance)
        if ledger.acknowledged and chance.random() < 0.1:
            text = chance.choice(sorted(ledger.acknowledged))
        ledger.hand([(text, label)])
        spool.add(text, label, spool=field.state / "spool")
        ledger.acknowledge()


def hand_over_file(field: Field, ledger: Ledger, chance: random.Random, count: int) -> None:
    """Hand over many examples at once."""
    examples = [made(chance) for _ in range(count)]
    ledger.hand(examples)
    field.drop("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in examples))
    ledger.acknowledge()


def problem_of(field: Field, ledger: Ledger) -> str | None:
    """Return what is wrong with the device as the kill left it, or None."""
    return store_problem(field.state) or ledger.problem(examples_in(field.state)) or current_problem(field.state)


if __name__ == "__main__":
    sys.exit(main())
