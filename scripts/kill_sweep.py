"""SIGKILL the daemon before each single operation on its files, or let the disk be full from there on.

    .venv-device/bin/python scripts/kill_sweep.py --bundle build/test-bundles/tiny-fp32
    .venv-device/bin/python scripts/kill_sweep.py --bundle build/test-bundles/tiny-fp32 --full-disk

strace counts the daemon's writes, syncs, renames and removals (the parent's, which alone changes the store and the
releases) and kills it before the k-th of each kind, for every k (of SQLite's writes of pages before every eighth); with
--full-disk calls of that kind fail from the k-th on with ENOSPC. To be affordable a cycle is cut into legs, each of
which starts from a copy of the state directory as the leg before left it:
    ingest     from a full spool to the start of the trainer
    candidate  from a finished run to the start of the comparison
    gate       from a complete candidate through the comparison and the release to the end
    release    from the decision to the end of the cycle: publish, switch, prune, back up, tidy
After each no acknowledged example may be lost or doubled and `current` must be complete and loadable; then a daemon
that nobody disturbs must end the cycle with the release (in the leg `ingest` after every tenth time). Needs strace.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.kill_daemon import EASY, hand_over, hand_over_file, problem_of, state_of
from tests.daemon.field import Field, environment, wait_for
from tests.daemon.invariants import Ledger

CALLS = (
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "symlink",
    "fchmod",
    "chmod",
)
FILLING = ("write", "pwrite64", "fsync", "fdatasync", "rename", "mkdir", "mkdirat", "symlink")
CHILD = re.compile(r"(vfork|clone3?|fork)\(")
CALL = re.compile(r"(\w+)\(")


def main() -> int:
    """Sweep all legs; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only before every Nth operation")
    parser.add_argument("--pages", type=int, default=8, metavar="N", help="only before every Nth of SQLite's pages")
    parser.add_argument("--full-disk", action="store_true", help="let calls fail instead of killing")
    options = parser.parse_args()
    began = time.monotonic()
    result: dict[str, dict[str, object]] = {}
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        legs = Legs(Path(folder), options.bundle.absolute())
        for name in legs.ends:
            result[name], problems = sweep(legs, name, options)
            print(name, json.dumps(result[name]), file=sys.stderr, flush=True)
            failed += problems
    print(json.dumps({**result, "failed": failed, "minutes": round((time.monotonic() - began) / 60, 1)}, indent=2))
    return int(failed > 0)


class Legs:
    """The state directories from which the legs start, and how far each leg goes."""

    def __init__(self, root: Path, bundle: Path) -> None:
        self.root = root
        self.field = Field(root, bundle)
        self.field.profile.write_text(EASY)
        self.ledger = Ledger()
        # The child whose start ends a leg: its number in the run, or None for a leg to the end.
        self.ends: dict[str, int | None] = {"ingest": 1, "candidate": 2, "gate": None, "release": None}
        self._make()

    def _make(self) -> None:
        field, chance = self.field, random.Random(0)
        field.once(status=75)
        hand_over_file(field, self.ledger, chance, 400)
        field.once()
        hand_over_file(field, self.ledger, chance, 1500)
        hand_over(field, self.ledger, chance, 6)
        self.keep("ingest")
        run = field.state / "cycle" / "run-1" / "result.json"
        for name, reached in (
            ("candidate", run.exists),
            ("gate", lambda: state_of(field) == "trained"),
            ("release", lambda: state_of(field) == "decided"),
        ):
            self._stop_at(name, reached)

    def _stop_at(self, name: str, reached: Callable[[], bool]) -> None:
        """Kill daemons until one has come exactly so far, and keep that."""
        process = subprocess.Popen(
            self.field.command("daemon", "--once"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        wait_for(lambda: reached() or process.poll() is not None)
        process.kill()
        process.wait()
        if not reached():
            raise SystemExit(f"the daemon did not stop where leg '{name}' begins: try again")
        self.keep(name)

    def keep(self, name: str) -> None:
        """Keep the state directory under a name."""
        shutil.copytree(self.field.state, self.root / name, symlinks=True)

    def restore(self, name: str) -> None:
        """Make the state directory what it was."""
        shutil.rmtree(self.field.state, ignore_errors=True)
        shutil.copytree(self.root / name, self.field.state, symlinks=True)


def sweep(legs: Legs, name: str, options: argparse.Namespace) -> tuple[dict[str, object], int]:
    """Disturb each operation of one leg; return its figures and how often that did harm."""
    field = legs.field
    before: collections.Counter[str] = collections.Counter()
    states: collections.Counter[str] = collections.Counter()
    finished = failed = number = 0
    calls = operations(legs, name)
    for call in FILLING if options.full_disk else CALLS:
        for k in range(1, calls.get(call, 0) + 1, options.pages if call == "pwrite64" else 1):
            number += 1
            if number % options.every:
                continue
            legs.restore(name)
            fault = f"error=ENOSPC:when={k}+" if options.full_disk else f"signal=SIGKILL:when={k}"
            status = traced(field, f"inject={call}:{fault}")
            if not options.full_disk and status != -signal.SIGKILL:
                continue  # this time it did not come so far: fewer status texts, a quicker child
            before[call] += 1
            states[state_of(field)] += 1
            problem = problem_of(field, legs.ledger)
            if problem is None and (name != "ingest" or number % 10 == 0):
                problem = problem_of_rest(field, legs.ledger)
                finished += 1
            if problem:
                failed += 1
                print(f"{name}: before {call} {k}: {problem}", file=sys.stderr, flush=True)
    figures: dict[str, object] = {
        "times": before.total(),
        "before": dict(before),
        "cycle_was": dict(states),
        "ended_afterwards": finished,
        "failed": failed,
    }
    return figures, failed


def operations(legs: Legs, name: str) -> dict[str, int]:
    """Return how often the daemon makes each call in a leg."""
    legs.restore(name)
    log = legs.root / "log"
    traced(legs.field, "signal=none", "-o", log)
    counts: collections.Counter[str] = collections.Counter()
    children, end = 0, legs.ends[name]
    for line in log.read_text(errors="replace").splitlines():
        children += CHILD.match(line) is not None
        if children == end:
            break
        if (found := CALL.match(line)) and found[1] in CALLS:
            counts[found[1]] += 1
    return dict(counts)


def traced(field: Field, what: str, *options: str | Path) -> int:
    """Run the timer's job under strace, which does not follow its children; return its status, negative if killed."""
    output = options or ("-o", "/dev/null")
    calls = ",".join((*CALLS, "vfork", "clone", "clone3", "fork"))
    command = ["strace", "-qq", "-e", f"trace={calls}", "-e", what, *output, *field.command("daemon", "--once")]
    done = subprocess.run(command, capture_output=True, env=environment(), check=False, timeout=300)
    return done.returncode


def problem_of_rest(field: Field, ledger: Ledger) -> str | None:
    """Let a daemon end the cycle, and return what is wrong then."""
    done = subprocess.run(
        field.command("daemon", "--once"), capture_output=True, text=True, env=environment(), check=False, timeout=300
    )
    if done.returncode not in (0, 75) or "Traceback" in done.stderr:
        return f"the next daemon ended with {done.returncode}: {done.stderr[-300:]}"
    # Killed after the switch, and the next daemon had only to tidy up.
    if done.returncode == 75 and state_of(field) != "finished":
        return f"the cycle did not end: {done.stdout[-300:]}"
    if not field.current().startswith("000002-"):
        return f"the cycle did not release: {field.current()}"
    if (field.state / "cycle").exists():
        return "the cycle's files are still there"
    return problem_of(field, ledger)


if __name__ == "__main__":
    sys.exit(main())
