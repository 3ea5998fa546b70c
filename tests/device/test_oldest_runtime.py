"""Releases answer alike in the oldest ONNX Runtime that is named in them, which has nothing of edge-far beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.release_files import OLDEST_ONNXRUNTIME, Precision, write_release
from tests.other_tasks import counted
from tests.tiny_cases import CASES, Oracle

OLDEST = Path(__file__).resolve().parents[2] / ".venv-oldest" / "bin" / "python"
NAMES = [*{case.architecture: case.name for case in reversed(CASES)}.values(), "bert-r40-tag-dropout"]
# Runs every release in a folder on its own input; prints the version.
PROGRAM = """
import sys
import numpy as np, onnxruntime as ort
from pathlib import Path
print(ort.__version__)
for directory in sorted(Path(sys.argv[1]).iterdir()):
    session = ort.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    with np.load(directory / "inputs.npz") as inputs:
        logits = session.run(["logits"], {name: inputs[name] for name in inputs.files})[0]
    np.save(directory / "logits.npy", logits)
"""
# Kernels of other versions add up in another order; in 8 bits that can move a number to the next step.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-5, "fp16": 1e-5, "int8": 2e-3}


def test_every_architecture_and_precision_answers_as_here(
    tiny_bundle: Callable[[str], Bundle], oracle: Callable[[str], Oracle], tmp_path: Path
) -> None:
    if not OLDEST.exists():
        pytest.skip("needs .venv-oldest: make env-oldest, with Python 3.11")
    wanted = {}
    for name in NAMES:
        bundle, batch = tiny_bundle(name), oracle(name).batch(1)
        learners = read_arrays(bundle.path("learners.safetensors"))
        inputs = batch.model_inputs(token_types=bundle.manifest.portable.token_types)
        for precision in TOLERANCES:
            out = tmp_path / f"{name}.{precision}"
            write_release(bundle, learners, out, precision=precision)
            np.savez(out / "inputs.npz", **inputs)
            session = ort.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
            wanted[out] = (precision, batch, np.asarray(session.run(["logits"], inputs)[0]))
    run = subprocess.run([OLDEST, "-c", PROGRAM, tmp_path], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, OLDEST_ONNXRUNTIME), run.stderr[-2000:]
    for out, (precision, batch, logits) in wanted.items():
        found = np.load(out / "logits.npy")
        expected, given = (counted(each, batch) for each in (logits, found))
        np.testing.assert_allclose(given, expected, rtol=0, atol=TOLERANCES[precision] * max(1, np.abs(expected).max()))
