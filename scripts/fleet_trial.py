"""A whole fleet on this machine, of real processes: a SuperLink with TLS and keys, four SuperNodes, their boards.

    .venv-device/bin/python scripts/fleet_trial.py --flower FLOWER-ENVIRONMENT --bundles build/test-bundles

No simulation engine. Boards misbehave one after the other (STEPS, in their order), the server is killed in round 3 and
started again, a board's own nightly cycle runs meanwhile. After each round: who took part and who did not is as it
should be, the learners are the mean computed aside bit for bit, and every board has its examples and a sound release.
Ends with 1 at the first thing that is not so; prints bytes, seconds and the peak of each kind of process.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bundles.arrays import read_arrays, read_learners
from tests.daemon.field import environment, wait_for
from tests.daemon.invariants import current_problem, examples_in
from tests.fleet.board import Board
from tests.fleet.flower import Flower, descendants, make_keys
from tests.tiny_cases import REPOSITORY

EXAMPLES = (600, 60, 150, 300)  # uneven
NAMES = ("attic", "barn", "cellar", "dock")
ROUND_S = 90.0
UNDECIDED = ("barn", "cellar")  # too few held-out examples for a gate
BUSY_EPOCHS = 60  # long enough that somebody can die in the midst of it
LIE = """

def _done(node, order, received):  # a liar of scripts/fleet_trial.py: every check of its own side is gone
    change = {{name: np.zeros_like(array) for name, array in received.items()}}
    name = min(change)
    change[name] = np.full_like(change[name], {value})
    return Answer("trained", "", {{"examples": 1e6}}), packed(change, order.traffic)
"""


class Seat:
    """One board with its worker and its SuperNode."""

    def __init__(self, name: str, root: Path, bundle: Path, flower: Flower, key: Path) -> None:
        self.name, self.key, self._flower = name, key, flower
        root.mkdir()
        self.board = Board(root, bundle)
        self.keep = root / "keep"
        self.keep.mkdir()
        self._worker: subprocess.Popen[bytes] | None = None
        self.known: list[tuple[str, str]] = []

    def start(self, package: Path = REPOSITORY) -> None:
        """Start worker and SuperNode."""
        with (self.board.root / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(self.board.work_command(), stdout=log, stderr=log, env=environment())
        settings = {"bundle": self.board.bundle, "desk": self.board.desk.root, "keep": self.keep}
        self._flower.start_node(self.name, self.key, settings, package)

    def stop(self) -> None:
        """End both in good order."""
        self._flower.kill(self.name, signal.SIGTERM)
        assert self._worker is not None
        self._worker.terminate()
        self._worker.wait()

    def kill(self) -> None:
        """End both with SIGKILL, and all that they started: a power cut."""
        self._flower.kill(self.name)
        assert self._worker is not None
        for pid in [self._worker.pid, *descendants(self._worker.pid)]:
            with suppress(ProcessLookupError):
                subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
        self._worker.wait()
        self._worker = None

    @property
    def trains(self) -> bool:
        """Return whether a round's trainer has stepped."""
        log = self.board.state / "round" / "run-1" / "log.jsonl"
        return log.is_file() and '"event": "step"' in log.read_text()


class Trial:
    """A fleet and what must hold after each of its rounds."""

    def __init__(self, root: Path, flower: Path, bundles: Path) -> None:
        self.root, self.bundle, self.other = root, bundles / "tiny-fp32", bundles / "tiny-int8"
        self.flower = Flower(root, flower)
        make_keys(root / "keys", len(NAMES))
        self.rounds = root / "fleet"
        self.seats = [
            Seat(name, root / f"board-{name}", self.bundle, self.flower, root / "keys" / f"node-{number}")
            for number, name in enumerate(NAMES)
        ]
        self.before = read_learners(self.bundle / "learners.safetensors")
        self.number = 0

    def set_up(self) -> None:
        """Give the boards their examples, start everything, let the server know the keys."""
        for number, (seat, count) in enumerate(zip(self.seats, EXAMPLES, strict=True)):
            seat.board.know(count, seed=number)
            seat.known = examples_in(seat.board.state)
        self.flower.start_link()
        for seat in self.seats:
            self.flower.register(seat.key)
            seat.start()

    def settings(self, rounds: int, **changes: object) -> dict[str, object]:
        """Return the plan up to a round."""
        return {
            "bundle": str(self.bundle),
            "state": str(self.rounds),
            "rounds": rounds,
            "min-nodes": len(self.seats),
            "round-seconds": ROUND_S,
            "release": False,
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }

    def run(self, number: int, expected: dict[str, str], **changes: object) -> None:
        """Have a round, and look at what came of it; `expected` says how each board is told of."""
        self.flower.finish(self.flower.begin(self.settings(number, **changes)))
        self.look(number, expected)

    def look(self, number: int, expected: dict[str, str]) -> None:
        """Compare a finished round with what must have come of it, and with the mean computed aside."""
        directory = self.rounds / "rounds" / f"{number:06d}"
        record = json.loads((directory / "round.json").read_text())
        said = sorted(" ".join(filter(None, (n["outcome"], n["reason"]))) for n in record["nodes"].values())
        must(said == sorted(expected.values()), f"round {number}: {said}, not {sorted(expected.values())}")
        learners = read_learners(directory / "learners.safetensors")
        aside = self.mean_aside(record, [s for s in self.seats if expected[s.name] == "trained"])
        must(all(np.array_equal(learners[n], aside[n]) for n in learners), f"round {number} is not the mean")
        self.before, self.number = learners, number
        self.sound()
        print(f"round {number}: {', '.join(f'{n} {e}' for n, e in expected.items())}; the mean bit for bit; ", end="")
        print(f"{record['seconds']:.1f} s, {record['bytes_down']:,} bytes down, {record['bytes_up']:,} up", flush=True)

    def mean_aside(self, record: dict[str, Any], trained: list[Seat]) -> dict[str, np.ndarray]:
        """Return the weighted mean of what lies on the boards' desks, in the order of the nodes' numbers."""
        by_norm = {}
        for seat in trained:
            change = {
                n: a - self.before[n] for n, a in read_arrays(seat.board.desk.root / "answer.safetensors").items()
            }
            norm = np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in change.values()))
            by_norm[f"{norm:.4f}"] = change
        must(len(by_norm) == len(trained), "two boards had the same change")
        total: dict[str, np.ndarray] = {n: np.zeros(a.shape, np.float64) for n, a in self.before.items()}
        weights = 0.0
        for _, node in sorted((int(number), n) for number, n in record["nodes"].items() if n["outcome"] == "trained"):
            change, weight = by_norm[f"{node['figures']['norm']:.4f}"], node["figures"]["examples"]
            for name in total:
                total[name] += weight * change[name].astype(np.float64)
            weights += weight
        start = {name: array.astype(np.float64) for name, array in self.before.items()}
        return {name: (start[name] + array / weights).astype(np.float32) for name, array in total.items()}

    def sound(self) -> None:
        """Every board has its examples, a sound release and no half of a round but what a killed one goes on from."""
        for seat in self.seats:
            must(examples_in(seat.board.state) == seat.known, f"{seat.name}: examples changed")
            problem = current_problem(seat.board.state)
            must(problem is None, f"{seat.name}: {problem}")


def must(holds: bool, text: str) -> None:
    """Raise where something does not hold."""
    if not holds:
        raise AssertionError(text)


# --- the steps ----------------------------------------------------------------------------------------------------

ALL = dict.fromkeys(NAMES, "trained")


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
    package = trial.root / f"liar-{word}"
    shutil.copytree(REPOSITORY / "edge_far", package / "edge_far", ignore=shutil.ignore_patterns("__pycache__"))
    with (package / "edge_far/fleet/board/client_app.py").open("a") as file:
        file.write(LIE.format(value=value))
    seat.stop()
    seat.start(package)
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
    """The next round: a board's own nightly cycle is at work: it goes its way, and the board declines."""
    board, number = trial.seats[0].board, trial.number + 1
    profile = board.profile.read_text()
    board.profile.write_text(profile.replace("min_new_examples: 10", f"min_new_examples: 10, epochs: {BUSY_EPOCHS}"))
    cycle = board.start()
    wait_for(lambda: board.run_log.is_file() and '"event": "step"' in board.run_log.read_text(), 60)
    trial.run(number, {**ALL, "attic": "declined busy"})
    told, errors = cycle.communicate(timeout=300)
    must(cycle.returncode == 0, errors)
    print(f"round {number}: meanwhile attic's own cycle: {json.loads(told)['cycle']['outcome']}", flush=True)
    board.profile.write_text(profile)


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
        offer, before = seat.board.state / "offer", seat.board.current()
        if seat.name in UNDECIDED:
            told = seat.board.once(status=75)["deferred"]
            must("held-out examples" in told and offer.is_dir() and seat.board.current() == before, told)
            print(f"{seat.name}: the offer waits: {told}", flush=True)
            continue
        cycle = seat.board.once()["cycle"]
        kept = read_learners(seat.board.state / "model" / "current" / "learners.safetensors")
        same = all(np.array_equal(array, kept[name]) for name, array in trial.before.items())
        must(same == (cycle["outcome"] == "released"), f"{seat.name}: half released")
        must("offer" in cycle["details"] and not offer.exists(), f"{seat.name}: no offer was judged")
        print(f"{seat.name}: its gate {cycle['outcome']}: {cycle['details']['reason']}", flush=True)
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
    trial = Trial(root.resolve(), options.flower.resolve(), options.bundles.resolve())
    began_s = time.monotonic()
    try:
        trial.set_up()
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
        trial.flower.sample()
        for seat in trial.seats:
            with suppress(KeyError, AssertionError):
                seat.stop()
        trial.flower.stop()
    for kind, peak in sorted(trial.flower.peaks.items()):
        print(f"peak      {peak:6.0f} MiB  {kind}")
    print(f"all held, {time.monotonic() - began_s:.0f} s")
    if options.keep is None:
        shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
