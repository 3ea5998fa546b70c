"""The files of a training run: run.json, result.json, checkpoints, log; as a later command finds them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random

from edge_far.device.run import checkpoint
from edge_far.report.page.run_section import run_section
from edge_far.report.runlog import read_run_log
from tests.fuzz.judge import Bounds, call, problem_of, run
from tests.fuzz.mutate import mutate_bytes, mutate_json, mutate_lines, mutate_safetensors
from tests.fuzz.targets.base import Case, Target
from tests.fuzz.targets.bundles import EXAMPLES

__all__ = ["FinishedRun", "InterruptedRun", "RunLogFile"]

TRAIN = ("train", "{bundle}", "--train", "{work}/data.jsonl", "--out", "{work}/run", "--no-probe", "--epochs", "2")


def train(bundle: Path, good: Path, *more: str) -> None:
    """Train in `good`/run."""
    (good / "data.jsonl").write_text(EXAMPLES)
    words = [word.replace("{bundle}", str(bundle)).replace("{work}", str(good)) for word in (*TRAIN, *more)]
    bounds = Bounds(frozenset({0}), (good,), 120.0, 2000.0)
    ending = run(words, bounds)
    problem = problem_of(ending, bounds)
    if problem is not None:
        raise RuntimeError(f"the good run failed: {problem}")


class FinishedRun(Target):
    """A finished run: its result used, or resumed."""

    name = "finished run"
    codes = frozenset({0, 65, 66, 78})
    outputs = ("out",)

    def prepare(self, good: Path) -> None:
        """Train a run to its end."""
        train(self.bundle, good)

    def make(self, chance: Random) -> Case:
        """Return a run with a changed document, or changed learners whose hash the result holds."""
        uses = (
            ("predict", "{bundle}", "--run", "{work}/run", "w1 w2"),
            ("merge", "{bundle}", "--run", "{work}/run", "--out", "{work}/out"),
            (*TRAIN, "--resume"),
        )
        name = chance.choice(("run.json", "result.json", "learners.safetensors"))
        if name != "learners.safetensors":
            return Case({f"run/{name}": mutate_json(self.read(f"run/{name}"), chance)}, chance.choice(uses))
        content = mutate_safetensors(self.read("run/learners.safetensors"), chance)
        result = json.loads(self.read("run/result.json")) | {"learners_sha256": hashlib.sha256(content).hexdigest()}
        return Case({f"run/{name}": content, "run/result.json": json.dumps(result).encode()}, chance.choice(uses))


class InterruptedRun(Target):
    """A run that ended before its end: resumed from checkpoints that are damaged or of another tool."""

    name = "interrupted run"
    codes = frozenset({0, 65, 69, 78})  # 69: more threads than its limit of addresses allows
    outputs = ("run",)

    def prepare(self, good: Path) -> None:
        """Train a run, keep its checkpoints, and take away what only its end writes."""
        (good / "held.jsonl").write_text(EXAMPLES)
        train(self.bundle, good, "--eval", "{work}/held.jsonl", "--checkpoint-steps", "2")
        for name in ("result.json", "learners.safetensors"):
            (good / "run" / name).unlink()
        newest = max((good / "run" / "checkpoints").iterdir())
        shutil.rmtree(newest)  # the last step's, after which nothing is left to do

    def make(self, chance: Random) -> Case:
        """Return a run with a changed document or array of its newest checkpoint, its hashes right or wrong."""
        resume = (*TRAIN, "--eval", "{work}/held.jsonl", "--checkpoint-steps", "2", "--resume")
        newest = max((self.good / "run" / "checkpoints").iterdir()).relative_to(self.good).as_posix()
        state = self.read(f"{newest}/state.json")
        kind = chance.randrange(5)
        if kind == 0:
            return Case({"run/run.json": mutate_json(self.read("run/run.json"), chance)}, resume)
        if kind == 1:
            return Case({"run/best/metrics.json": mutate_json(self.read("run/best/metrics.json"), chance)}, resume)
        if kind == 2:
            changed = mutate_json(state, chance)
            return Case({f"{newest}/state.json": _checksummed(changed) if chance.random() < 0.8 else changed}, resume)
        if kind == 3:
            return Case({"run/log.jsonl": mutate_lines(self.read("run/log.jsonl"), chance, mutate_json)}, resume)
        name = chance.choice(("learners.safetensors", "optimizer.safetensors"))
        content = mutate_safetensors(self.read(f"{newest}/{name}"), chance)
        body = json.loads(state)
        body["sha256"][name] = hashlib.sha256(content).hexdigest()
        return Case(
            {f"{newest}/{name}": content, f"{newest}/state.json": _checksummed(json.dumps(body).encode())}, resume
        )


class RunLogFile(Target):
    """log.jsonl as `report` reads it and draws it on its page."""

    name = "run log"

    def prepare(self, good: Path) -> None:
        """Train a run to its end."""
        train(self.bundle, good)

    def make(self, chance: Random) -> Case:
        """Return a changed log."""
        return Case({"run/log.jsonl": mutate_lines(self.read("run/log.jsonl"), chance, mutate_json)})

    def problem(self, case: Case) -> str | None:
        """Read it, and draw what was read."""
        with self.laid(case):
            ending = call("run_section", lambda: run_section("run", read_run_log(self.work / "run"), 1), self.bounds)
            return problem_of(ending, self.bounds)


def _checksummed(state: bytes) -> bytes:
    """Return a checkpoint's state with the checksum that belongs to it, where it is an object."""
    try:
        body = json.loads(state)
        body.pop("checksum", None)
        return json.dumps({**body, "checksum": checkpoint._checksum(body)}).encode()
    except (ValueError, AttributeError, TypeError, RecursionError):
        return mutate_bytes(state, Random(0))
