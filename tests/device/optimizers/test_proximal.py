"""FedProx's term: its gradient by hand, and what it does to a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_learners
from edge_far.device.optimizers.proximal import CHUNK, Proximal
from edge_far.fleet.exchange import change_between, norm_of
from tests.daemon.field import environment

pytestmark = pytest.mark.device


def test_its_gradient_is_mu_times_the_way_from_the_start() -> None:
    random = np.random.default_rng(0)
    shapes = {"a": (3, CHUNK // 2 + 5), "b": (7,)}
    start, now, gradients = (
        {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(3)
    )
    expected = {name: gradients[name] + np.float32(0.25) * (now[name] - start[name]) for name in shapes}
    proximal = Proximal(0.25, start)
    for array in start.values():
        array.fill(99)  # it has a copy
    proximal.add_to(gradients, now)
    assert all(np.array_equal(gradients[name], expected[name]) for name in shapes)


def train(bundle: Path, data: Path, out: Path, *options: str, code: int = 0) -> dict[str, np.ndarray]:
    command = [sys.executable, "-m", "edge_far.cli", "train", str(bundle), "--train", str(data), "--out", str(out)]
    command += ["--no-probe", "--epochs", "4", "--learning-rate", "1e-2", "-q", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    assert done.returncode == code, done.stderr
    return read_learners(out / "learners.safetensors") if not code else {}


def test_a_run_stays_nearer_and_goes_on_with_the_same_start(
    test_bundles: Path, tiny_data: Path, tmp_path: Path
) -> None:
    bundle = test_bundles / "tiny-fp32"
    start = read_learners(bundle / "learners.safetensors")
    free = train(bundle, tiny_data, tmp_path / "free")
    held = train(bundle, tiny_data, tmp_path / "held", "--proximal-mu", "100")
    assert norm_of(change_between(start, held)) < 0.7 * norm_of(change_between(start, free))
    # Continued from its last checkpoint it must not take that for the start.
    stopped = tmp_path / "stopped"
    train(bundle, tiny_data, stopped, "--proximal-mu", "100", "--checkpoint-steps", "1")
    for name in ("result.json", "learners.safetensors"):
        (stopped / name).unlink()
    newest = max((stopped / "checkpoints").iterdir())
    for path in newest.iterdir():
        path.unlink()  # the one before it is good
    again = train(bundle, tiny_data, stopped, "--proximal-mu", "100", "--checkpoint-steps", "1", "--resume")
    assert all(np.array_equal(again[name], held[name]) for name in held)
    train(bundle, tiny_data, stopped, "--proximal-mu", "1", "--resume", code=78)
