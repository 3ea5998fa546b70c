"""A whole fleet on this machine, of real processes: a SuperLink with TLS and keys, four SuperNodes, their boards.

    .venv-device/bin/python scripts/fleet_trial.py --flower FLOWER-ENVIRONMENT --bundles build/test-bundles

No simulation engine. Boards misbehave one after the other (`main`, in this order), the server is killed in round 3 and
started again, a board's own nightly cycle runs meanwhile. On that board a daemon waits all the time, which looks by
itself; on the others the timer's is started by hand. After each round: who took part and who did not is as it
should be, the learners are the mean computed aside bit for bit, and every board has its examples and a sound release.
Ends with 1 at the first thing that is not so; prints bytes, seconds and the peak of each kind of process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bundles.arrays import read_learners
from edge_far.daemon.state import StateDirectory
from edge_far.daemon.store.examples import Store
from edge_far.daemon.store.journal import Journal
from tests.daemon.field import PROFILE, wait_for
from tests.fleet.trial import PATIENT, Trial, must
from tests.tiny_cases import REPOSITORY

EXAMPLES = {"attic": 600, "barn": 60, "cellar": 150, "dock": 300}  # uneven; attic has a daemon that waits
UNDECIDED = ("barn", "cellar")  # too few held-out examples for a gate
BUSY_EPOCHS = 60  # long enough that somebody can die in the midst of it


# --- the steps ----------------------------------------------------------------------------------------------------

ALL = dict.fromkeys(EXAMPLES, "trained")


def another_bundle(trial: Trial) -> None:
    """Round 1: one board has another bundle."""
    seat = trial.seats[3]
    seat.stop()
    seat.board.bundle = trial.other
    seat.start()
    trial.run(1, {**ALL, "dock": "declined bundle"})


def a_liar(trial: Trial, number: int, value: str, word: str) -> None:
    """Rounds 2 and 3: one board sends what it must not, its own side's checks gone; in 3 the server dies as well."""
    seat = trial.seats[3]
    seat.stop()
    seat.start_liar(value)
    expected = {**ALL, "dock": f"refused {word}"}
    if number != 3:
        trial.run(number, expected)
        return
    trial.flower.begin(trial.settings(number, epochs=BUSY_EPOCHS))
    wait_for(lambda: trial.seats[0].trains, 60)
    trial.flower.kill("link")
    must(not (trial.rounds / "rounds" / "000003").exists(), "round 3 ended before the server died")
    print("round 3: the server was killed while the boards train", flush=True)
    trial.flower.start_link()
    kept = (trial.rounds / "rounds" / "000002" / "learners.safetensors").read_bytes()
    trial.run(number, expected)
    must((trial.rounds / "rounds" / "000002" / "learners.safetensors").read_bytes() == kept, "round 2 was had again")


def dies_and_comes_back(trial: Trial) -> None:
    """Rounds 4 and 5: one board dies while it trains, with its SuperNode; then it is back, and another is too hot."""
    seat = trial.seats[3]
    seat.stop()
    seat.board.bundle = trial.bundle
    seat.start()
    run = trial.flower.begin(trial.settings(4, epochs=BUSY_EPOCHS))
    wait_for(lambda: seat.trains, 60)
    seat.kill()
    print("round 4: dock was killed while it trains", flush=True)
    trial.flower.finish(run)
    trial.look(4, {**ALL, "dock": "silent no answer"})
    seat.start()
    zone = trial.seats[1].board.sensors / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu")
    (zone / "temp").write_text("91000")
    trial.run(5, {**ALL, "barn": "declined temperature"})
    shutil.rmtree(zone.parents[1])


def own_cycle(trial: Trial) -> None:
    """The next round: the waiting daemon's own nightly cycle is at work: it goes its way, and the board declines."""
    seat, number = trial.seats[0], trial.number + 1
    board, daemon = seat.board, seat.daemon
    seat.tell_daemon(PROFILE.replace("min_new_examples: 10", f"min_new_examples: 10, epochs: {BUSY_EPOCHS}"))
    wait_for(lambda: board.run_log.is_file() and '"event": "step"' in board.run_log.read_text(), 60)
    trial.run(number, {**ALL, "attic": "declined busy"})
    wait_for(lambda: board.status()["last_cycle"], 300)
    must(daemon is not None and daemon.poll() is None, "attic's daemon is gone")
    print(f"round {number}: meanwhile attic's own cycle: {board.status()['last_cycle']['outcome']}", flush=True)
    seat.tell_daemon(PATIENT)
    trial.run(number + 1, ALL)  # and then it takes part again


def a_stranger(trial: Trial) -> None:
    """A SuperNode whose key the server does not know is turned away."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", trial.root / "keys/x"], check=True)
    told = trial.flower.start_stranger("stranger", trial.root / "keys/x", {"desk": trial.root})
    must("SuperNode ID" not in told and "Exit Code" in told, told)
    print("a SuperNode with an unknown key was turned away", flush=True)


def release(trial: Trial) -> None:
    """What came out is offered to all, and each board's own gate decides."""
    plan = trial.settings(trial.number, release=True)
    told = trial.flower.finish(trial.flower.begin(plan))
    must("offered to 4 of 4" in told, told)
    for seat in trial.seats:
        state, before = StateDirectory(seat.board.state), seat.board.current()
        if seat.name in UNDECIDED:
            told = seat.board.once(status=75)["deferred"]
            must("held-out examples" in told and state.offer.is_dir() and seat.board.current() == before, told)
            print(f"{seat.name}: the offer waits: {told}", flush=True)
            continue
        if seat.daemon is None:
            seat.board.once()
        else:  # the worker has asked it to look
            wait_for(lambda state=state: not state.offer.exists() and state.working_pid() is None)
        with Store(state.store) as store:
            (cycle,) = Journal(store).last(1)
        kept = read_learners(state.model / "current" / "learners.safetensors")
        same = all(np.array_equal(array, kept[name]) for name, array in trial.before.items())
        must(same == (cycle.outcome == "released"), f"{seat.name}: half released")
        must("offer" in cycle.details and not state.offer.exists(), f"{seat.name}: no offer was judged")
        by = "its gate" if seat.daemon is None else "the gate of its waiting daemon"
        print(f"{seat.name}: {by} {cycle.outcome}: {cycle.details['reason']}", flush=True)
    trial.sound()
    told = trial.flower.finish(trial.flower.begin(plan))
    must("every connected device has it" in told, told)


def strategies_and_traffic(trial: Trial) -> None:
    """One round of each other way, in a fleet of its own, over the same processes."""
    for name, changes in {
        "int8": {"traffic": "int8"},
        "fedadam": {"strategy": "fedadam"},
        "trimmed": {"strategy": "trimmed", "trim": 0.25},
        "privacy": {"clip_norm": 0.5, "privacy_noise": 0.1},
    }.items():
        settings = trial.settings(1, **changes)
        settings["state"] = str(trial.root / f"fleet-{name}")
        trial.flower.finish(trial.flower.begin(settings))
        record = json.loads((trial.root / f"fleet-{name}" / "rounds/000001/round.json").read_text())
        must(all(n["outcome"] == "trained" for n in record["nodes"].values()), f"{name}: {record['nodes']}")
        print(f"{name}: {record['bytes_down']:,} bytes down, {record['bytes_up']:,} up", flush=True)


def main() -> int:
    """Run the steps; return 1 at the first thing that does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower", type=Path, required=True, help="an environment with flwr, safetensors and PyYAML")
    parser.add_argument("--bundles", type=Path, default=REPOSITORY / "build" / "test-bundles")
    parser.add_argument("--last", action="store_true", help="the last steps alone, from the boards' own cycle on")
    parser.add_argument("--keep", type=Path, help="leave all files in this new directory")
    options = parser.parse_args()
    root = options.keep or Path(tempfile.mkdtemp(prefix="fleet-"))
    root.mkdir(parents=True, exist_ok=True)
    trial = Trial(root.resolve(), options.flower.resolve(), options.bundles.resolve(), EXAMPLES)
    began_s = time.monotonic()
    try:
        trial.set_up()
        trial.seats[0].start_daemon()
        if not options.last:
            another_bundle(trial)
            a_liar(trial, 2, "np.nan", "numbers")
            a_liar(trial, 3, "1e6", "norm")
            dies_and_comes_back(trial)
        own_cycle(trial)
        a_stranger(trial)
        release(trial)
        strategies_and_traffic(trial)
    except (AssertionError, subprocess.SubprocessError) as error:
        print(f"wrong: {error}\nfiles: {root}", flush=True)
        return 1
    finally:
        trial.end()
    for kind, peak in sorted(trial.flower.peaks.items()):
        print(f"peak      {peak:6.0f} MiB  {kind}")
    print(f"all held, {time.monotonic() - began_s:.0f} s")
    if options.keep is None:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
