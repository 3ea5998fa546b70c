"""A fleet on this machine for tests and trials: boards with worker, SuperNode, perhaps a waiting daemon; its rounds.

After each round everything that must hold of it is looked at: `Trial.look`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bundles.arrays import read_arrays, read_learners
from edge_far.daemon.state import StateDirectory
from tests.daemon.field import PROFILE, environment, wait_for
from tests.daemon.invariants import current_problem, examples_in
from tests.fleet.board import Board
from tests.fleet.flower import Flower, descendants, make_keys
from tests.tiny_cases import REPOSITORY

ROUND_S = 90.0
PATIENT = PROFILE.replace("min_new_examples: 10", "min_new_examples: 100000")  # looks, and does not train by itself
LIE = """

def _done(node, order, received):  # a liar of tests/fleet/trial.py: every check of its own side is gone
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
        self.daemon: subprocess.Popen[bytes] | None = None
        self.known: list[tuple[str, str]] = []

    def start(self, package: Path = REPOSITORY) -> None:
        """Start worker and SuperNode."""
        with (self.board.root / "worker.log").open("ab") as log:
            self._worker = subprocess.Popen(self.board.work_command(), stdout=log, stderr=log, env=environment())
        settings = {"bundle": self.board.bundle, "desk": self.board.desk.root, "keep": self.keep}
        self._flower.start_node(self.name, self.key, settings, package)

    def start_liar(self, value: str) -> None:
        """Start worker and a SuperNode whose own side's checks are gone: it sends `value` in one array."""
        package = self.board.root / "liar"
        shutil.rmtree(package, ignore_errors=True)
        shutil.copytree(REPOSITORY / "edge_far", package / "edge_far", ignore=shutil.ignore_patterns("__pycache__"))
        with (package / "edge_far/fleet/board/client_app.py").open("a") as file:
            file.write(LIE.format(value=value))
        self.start(package)

    def start_daemon(self) -> None:
        """Start a daemon that looks by itself, once a day or when it is asked, and does not train of its own accord."""
        self.board.profile.write_text(PATIENT)
        command = self.board.command("daemon", "--interval-minutes", "1440")
        with (self.board.root / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log, env=environment())
        state = StateDirectory(self.board.state)
        wait_for(lambda: state.running_pid() == self.daemon.pid and state.working_pid() is None)

    def tell_daemon(self, profile: str) -> None:
        """Give the daemon another profile; it looks at once."""
        assert self.daemon is not None
        self.board.profile.write_text(profile)
        self.daemon.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End worker and SuperNode in good order."""
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

    def __init__(self, root: Path, flower: Path, bundles: Path, examples: dict[str, int]) -> None:
        self.root, self.bundle, self.other = root, bundles / "tiny-fp32", bundles / "tiny-int8"
        self._examples = examples
        self.flower = Flower(root, flower)
        make_keys(root / "keys", len(examples))
        self.rounds = root / "fleet"
        self.seats = [
            Seat(name, root / f"board-{name}", self.bundle, self.flower, root / "keys" / f"node-{number}")
            for number, name in enumerate(examples)
        ]
        self.before = read_learners(self.bundle / "learners.safetensors")
        self.number = 0

    def set_up(self, liars: Mapping[str, str] | None = None) -> None:
        """Give the boards their examples, start everything, let the server know the keys; `liars`: `start_liar`."""
        for number, seat in enumerate(self.seats):
            seat.board.know(self._examples[seat.name], seed=number)
            seat.known = examples_in(seat.board.state)
        self.flower.start_link()
        for seat in self.seats:
            self.flower.register(seat.key)
            if seat.name in (liars or {}):
                seat.start_liar((liars or {})[seat.name])
            else:
                seat.start()

    def end(self) -> None:
        """End everything, whatever has been started of it."""
        self.flower.sample()
        for seat in self.seats:
            with suppress(KeyError, AssertionError):
                seat.stop()
            if seat.daemon is not None:
                seat.daemon.terminate()
                seat.daemon.wait()
        self.flower.stop()

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
