"""What a fleet is worth: HWU64 in four uneven, label-skewed parts, over Flower's real processes on this machine.

    .venv-device/bin/python benchmarks/fleet_accuracy.py --flower FLOWER-ENVIRONMENT --host .venv/bin/python \\
        --data HWU64-DIRECTORY --model MINILM-DIRECTORY --out build/fleet --seeds 0 1 2
    .venv-device/bin/python benchmarks/fleet_accuracy.py --out build/fleet --report

A seed decides the parts, the bundle's priming and the order of training. Every part lies in a board's store, which
holds a fifth of it out; what trains is the rest, the same for all: each board alone and all in one place for ten
epochs, the federation for ten rounds of one epoch (--epochs N: N times that; --rounds: other than ten). The bundle
knows the labels and two examples of each, and begins with a random head. Each finished line is kept in
OUT/results.jsonl, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.process.children import module_command
from tests.daemon.field import environment
from tests.fleet.board import Board
from tests.fleet.flower import Flower, make_keys
from tests.tiny_cases import REPOSITORY

SHARES = (0.45, 0.10, 0.15, 0.30)  # of the examples
SKEW = 0.5  # of the Dirichlet distribution of each label over the boards; smaller is more skewed
ROUND_S = 600.0
PROFILE = """memory: {budget_mib: 700}
compute: {threads: 1}
pressure: {min_available_mib: 16, max_memory_psi_some_avg10_percent: null}
storage: {min_free_mib: 1}
adaptation: {min_new_examples: 100000}
"""


class Results:
    """The finished lines of OUT/results.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        if path.exists():
            self.lines = [json.loads(line) for line in path.read_text().splitlines()]

    def has(self, seed: int, what: str) -> bool:
        """Return whether a line is there."""
        return any((line["seed"], line["what"]) == (seed, what) for line in self.lines)

    def add(self, seed: int, what: str, **figures: object) -> None:
        """Keep a line."""
        line = {"seed": seed, "what": what, **figures}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)
        print(json.dumps(line), flush=True)


class Experiment:
    """One seed: its bundle, its parts, its boards."""

    def __init__(self, options: argparse.Namespace, seed: int, results: Results) -> None:
        self.options, self.seed, self.results = options, seed, results
        self.root = (options.out / f"seed-{seed}").resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self.bundle = self.root / "bundle"
        self.test = (options.data / "test.jsonl").resolve()

    def run(self) -> None:
        """Do what is not done yet."""
        rows = [json.loads(line) for line in (self.options.data / "train.jsonl").read_text().splitlines()]
        factory, rest = self._split(rows)
        if not (self.bundle / "manifest.json").exists():
            self._export(factory)
        parts = self._parts(rest)
        boards = [self._board(number, part) for number, part in enumerate(parts)]
        trains = [self._train_file(number, board) for number, board in enumerate(boards)]
        for number, file in enumerate(trains):
            self._at_once(f"alone-{number}", file)
        together = self.root / "central.jsonl"
        together.write_text("".join(file.read_text() for file in trains))
        self._at_once("central", together)
        for traffic in self.options.traffic:
            self._federation(traffic, boards)

    # --- data -----------------------------------------------------------------------------------------------------

    def _split(self, rows: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
        """Return two examples of each label for the factory, and a seeded choice of the others for the boards."""
        random = np.random.default_rng([self.seed, 1])
        order = [rows[number] for number in random.permutation(len(rows))]
        seen: dict[str, int] = defaultdict(int)
        factory, rest = [], []
        for row in order:
            seen[row["label"]] += 1
            (factory if seen[row["label"]] <= 2 else rest).append(row)
        return factory, rest[: self.options.examples]

    def _parts(self, rows: list[dict[str, str]]) -> list[list[dict[str, str]]]:
        """Return the boards' parts: uneven, and each label mostly on one or two boards."""
        random = np.random.default_rng([self.seed, 2])
        shares: dict[str, np.ndarray] = {}
        parts: list[list[dict[str, str]]] = [[] for _ in SHARES]
        for row in rows:
            label = row["label"]
            if label not in shares:
                shares[label] = random.dirichlet(SKEW * len(SHARES) * np.array(SHARES))
            parts[int(random.choice(len(SHARES), p=shares[label]))].append(row)
        return parts

    def _board(self, number: int, part: list[dict[str, str]]) -> Board:
        """Return a board whose store has taken up its part."""
        root = self.root / f"board-{number}"
        if (root / "done").exists():
            shutil.rmtree(root / "desk")
            return self._opened(root)
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        board = self._opened(root)
        board.drop("".join(json.dumps(row) + "\n" for row in part))
        board.once(status=75)
        (root / "done").touch()
        return board

    def _opened(self, root: Path) -> Board:
        shutil.rmtree(root / "sensors", ignore_errors=True)
        board = Board(root, self.bundle)
        board.profile.write_text(PROFILE)
        (root / "keep").mkdir(exist_ok=True)
        return board

    def _train_file(self, number: int, board: Board) -> Path:
        """Return what a board trains on, as a file for those who train at once."""
        with sqlite3.connect(board.state / "store.sqlite3") as connection:
            rows = connection.execute("SELECT text, label FROM examples WHERE held_out = 0 ORDER BY change").fetchall()
        file = self.root / f"train-{number}.jsonl"
        file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
        return file

    # --- training -------------------------------------------------------------------------------------------------

    def _export(self, factory: list[dict[str, str]]) -> None:
        file = self.root / "factory.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in factory))
        options = self.options
        words = ["export", "--model", str(options.model), "--train", str(file), "--out", str(self.bundle)]
        words += ["--method", options.method, "--pooling", "mean", "--head-start", "random", "--no-ort"]
        words += ["--profile", "rpi4-2gb", "--learning-rate", str(options.rate), "--seed", str(self.seed), "-q"]
        subprocess.run([*module_command("edge_far.cli", options.host), *words], check=True, env=environment())

    def _at_once(self, what: str, data: Path) -> None:
        """Train on a file for as many epochs as there are rounds, and measure."""
        if self.results.has(self.seed, what):
            return
        out, began_s = self.root / f"run-{what}", time.monotonic()
        shutil.rmtree(out, ignore_errors=True)
        profile = self.root / "board-0" / "profile.yaml"
        words = [
            "train",
            self.bundle,
            "--train",
            data,
            "--out",
            out,
            "--epochs",
            self.options.rounds[-1] * self.options.epochs,
            "--seed",
            self.seed,
        ]
        result = self._command(*words, "--profile", profile, "--cache", self.root / "cache", "--no-probe")
        learners = out / "learners.safetensors"
        self.results.add(
            self.seed,
            what,
            accuracy=self._accuracy(learners),
            examples=sum(1 for _ in data.open()),
            seconds=round(time.monotonic() - began_s, 1),
            peak_rss_mib=result["peak_rss_mib"],
        )

    def _accuracy(self, learners: Path) -> float:
        found = self._command("eval", self.bundle, "--learners", learners, "--data", self.test)
        return float(found["accuracy"])

    def _command(self, *words: object) -> dict[str, Any]:
        command = [*module_command("edge_far.cli"), *map(str, words), "--json", "-q"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def _federation(self, traffic: str, boards: list[Board]) -> None:
        """Have the rounds over Flower's processes, from the beginning, and measure after some of them."""
        what = f"federation-{traffic}"
        if self.results.has(self.seed, what):
            return
        root = self.root / what
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        flower = Flower(root, self.options.flower.resolve())
        make_keys(root / "keys", len(boards))
        workers = []
        began_s = time.monotonic()
        try:
            flower.start_link()
            for number, board in enumerate(boards):
                shutil.rmtree(board.root / "keep")
                (board.root / "keep").mkdir()
                with (root / f"worker-{number}.log").open("ab") as log:
                    workers.append(subprocess.Popen(board.work_command(), stdout=log, stderr=log, env=environment()))
                key = root / "keys" / f"node-{number}"
                flower.register(key)
                settings = {"bundle": self.bundle, "desk": board.desk.root, "keep": board.root / "keep"}
                flower.start_node(f"node-{number}", key, settings)
            figures: dict[str, Any] = {}
            for rounds in self.options.rounds:
                plan = {"bundle": str(self.bundle), "state": str(root / "rounds"), "rounds": rounds}
                plan |= {"min-nodes": len(boards), "round-seconds": ROUND_S, "traffic": traffic, "release": False}
                plan |= {"epochs": self.options.epochs, "seed": 100 * self.seed}
                flower.finish(flower.begin(plan), ROUND_S * rounds)
                learners = root / "rounds" / "rounds" / f"{rounds:06d}" / "learners.safetensors"
                figures[f"accuracy_{rounds}"] = self._accuracy(learners)
            flower.sample()
        finally:
            flower.stop()
            for worker in workers:
                worker.terminate()
                worker.wait()
        files = sorted((root / "rounds" / "rounds").glob("*/round.json"))
        records = [json.loads(file.read_text()) for file in files]
        nodes = [node for record in records for node in record["nodes"].values()]
        self.results.add(
            self.seed,
            what,
            accuracy=figures[f"accuracy_{self.options.rounds[-1]}"],
            **figures,
            bytes_down=sum(record["bytes_down"] for record in records),
            bytes_up=sum(record["bytes_up"] for record in records),
            contributions=sum(node["outcome"] == "trained" for node in nodes),
            round_seconds=round(float(np.median([record["seconds"] for record in records])), 1),
            trainer_peak_mib=max(n["figures"]["peak_rss_mib"] for n in nodes if n["outcome"] == "trained"),
            peaks_mib={kind: round(peak, 1) for kind, peak in flower.peaks.items()},
            seconds=round(time.monotonic() - began_s, 1),
        )


def report(results: Results) -> None:
    """Print the table: means and standard deviations over the seeds that are complete."""
    seeds = sorted({line["seed"] for line in results.lines})
    by_what: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        lines = {line["what"]: line for line in results.lines if line["seed"] == seed}
        alone = [line["accuracy"] for what, line in lines.items() if what.startswith("alone-")]
        if alone:
            by_what["mean board alone"].append(float(np.mean(alone)))
            by_what["best board alone"].append(max(alone))
        for what, line in lines.items():
            if what.startswith("federation-"):
                for name in (name for name in line if name.startswith("accuracy_")):
                    by_what[f"{what}, {name.partition('_')[2]} rounds"].append(line[name])
        if "central" in lines:
            by_what["central"].append(lines["central"]["accuracy"])
    print("| | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean | standard deviation |")
    print("|---" * (len(seeds) + 3) + "|")
    for what, found in by_what.items():
        cells = [f"{value:.2%}" for value in found] + ["not run"] * (len(seeds) - len(found))
        spread = f"{np.std(found, ddof=1):.2%}" if len(found) > 1 else "-"
        print(f"| {what} | {' | '.join(cells)} | {np.mean(found):.2%} | {spread} |")


def main() -> None:
    """Run what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--flower", type=Path, help="an environment with flwr, safetensors and PyYAML")
    parser.add_argument("--host", type=Path, help="Python of the workstation's environment, for the export")
    parser.add_argument("--data", type=Path, help="a directory with train.jsonl and test.jsonl")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--method", default="top-1")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=1, help="of a round; its own --out (default: %(default)s)")
    rounds = "measured after so many; the last is all (default: 5 10)"
    parser.add_argument("--rounds", type=int, nargs="+", default=[5, 10], help=rounds)
    parser.add_argument("--examples", type=int, default=2400, help="of all boards together (default: %(default)s)")
    parser.add_argument("--traffic", nargs="+", default=["float32", "int8"], choices=("float32", "int8"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="print the table of what is there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = str(REPOSITORY)  # this checkout, whatever an environment has installed
    results = Results(options.out / "results.jsonl")
    if not options.report:
        for seed in options.seeds:
            Experiment(options, seed, results).run()
    report(results)


if __name__ == "__main__":
    main()
