"""Do to a device, again and again, what the field does to it, and look whether it gets over it.

    .venv-device/bin/python scripts/fault_loops.py --bundle build/test-bundles/tiny-fp32 --rounds 20

Each round hands examples over, does one of the faults of tests/daemon/faults.py, and runs the timer's job under it.
Then no acknowledged example may be lost, doubled or have an old label, and `current` must be complete and loadable;
and after some more examples the next cycle must end with a decision of the gate. One table at the end. SIGKILL, power
cuts and a full disk have scripts of their own.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.daemon.store.examples import Store
from scripts.kill_daemon import EASY, hand_over_file
from tests.daemon.faults import FAULTS, Device
from tests.daemon.field import Field
from tests.daemon.invariants import Ledger, current_problem, examples_in, store_problem

MOST_ROUNDS = {"1 M lines": 2}  # rounds of what takes long


def main() -> int:
    """Run the loops; 1 where anything was lost, doubled, damaged or stuck."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), help="default: all of them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for name in options.fault or FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            field = Field(Path(folder), options.bundle.absolute())
            rows.append(loop(name, field, min(options.rounds, MOST_ROUNDS.get(name, options.rounds)), options.seed))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    return int(any(row["sound"] != row["rounds"] or row["next cycle"] != row["rounds"] for row in rows))


def loop(name: str, field: Field, rounds: int, seed: int) -> dict[str, object]:
    """Do one fault so often; return its row of the table."""
    began = time.monotonic()
    field.profile.write_text(EASY)
    device = Device(field, Ledger(), random.Random(seed))
    field.once(status=75)
    hand_over_file(field, device.ledger, device.chance, 400)
    field.once()
    sound = succeeded = 0
    for number in range(1, rounds + 1):
        device.hand_over(8)
        problem = one_round(name, device)
        sound += problem is None
        after = problem_of_next_cycle(device)
        succeeded += after is None
        for text in filter(None, (problem, after)):
            print(f"{name}, round {number}: {text}", file=sys.stderr, flush=True)
    with Store(field.state / "store.sqlite3") as store:
        counts = store.counts()
    told = [f"{device.notes.count(note)} {note}" for note in dict.fromkeys(device.notes)]
    return {
        "fault": name,
        "rounds": rounds,
        "acknowledged": len(device.ledger.acknowledged),
        "sound": sound,
        "next cycle": succeeded,
        "in quarantine": counts.quarantined,
        "expected there": device.quarantined,
        "set aside": counts.set_aside,
        "daemon's peak, MiB": round(device.peak_mib, 1) or "",
        "": ", ".join(told),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def one_round(name: str, device: Device) -> str | None:
    """Do the fault and return what is wrong then: lost, doubled, an old label, `current` not whole, or not said."""
    try:
        return FAULTS[name](device) or problem_of(device)
    except AssertionError as error:
        return str(error)


def problem_of(device: Device) -> str | None:
    """Return what is wrong with the device, or None."""
    state = device.field.state
    return store_problem(state) or device.ledger.problem(examples_in(state)) or current_problem(state)


def problem_of_next_cycle(device: Device) -> str | None:
    """Hand more over, let the daemon run, and return why no cycle came to a decision, or what is wrong then."""
    try:
        for _ in range(2):  # the cycle under way, and then one of its own
            device.hand_over(30)
            cycle = device.field.once()["cycle"]
            if cycle["outcome"] in ("released", "rejected"):
                return problem_of(device)
    except AssertionError as error:
        return str(error)
    return f"the next cycle: {cycle['outcome']}, {cycle['details'].get('reason')}"


if __name__ == "__main__":
    sys.exit(main())
