"""Runs a model on the stock ONNX Runtime of the device's environment, for tests of the workstation's.

onnxruntime-training brings ONNX Runtime 1.19, which does not know the operator Attention.
"""

from __future__ import annotations

import atexit
import functools
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_cases import REPOSITORY

PYTHON = REPOSITORY / ".venv-device" / "bin" / "python"
# Runs the model of each folder that it is told of, and answers with a line: nothing, or what went wrong.
SCRIPT = """
import sys
import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads = 1
options.log_severity_level = 3

def run(folder):
    session = ort.InferenceSession(f"{folder}/model.onnx", options, ["CPUExecutionProvider"])
    with np.load(f"{folder}/feeds.npz") as arrays:
        feeds = dict(arrays)
    names = [output.name for output in session.get_outputs()]
    np.savez(f"{folder}/outputs.npz", **dict(zip(names, session.run(names, feeds), strict=True)))

for line in sys.stdin:
    try:
        run(line.rstrip())
        print(flush=True)
    except Exception as error:
        print(" ".join(str(error).split()) or repr(error), flush=True)
"""


def run_on_stock_runtime(model: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every output of a model (its constants inside) by name; skips where there is no device environment."""
    if not PYTHON.is_file():
        pytest.skip("the device's environment is not set up: make env-device")
    with tempfile.TemporaryDirectory(prefix="edge-far-test-") as folder:
        Path(folder, "model.onnx").write_bytes(model)
        np.savez(Path(folder, "feeds.npz"), **feeds)
        runtime = _runtime()
        assert runtime.stdin is not None and runtime.stdout is not None
        runtime.stdin.write(f"{folder}\n")
        runtime.stdin.flush()
        assert (answer := runtime.stdout.readline()) == "\n", answer or _ended(runtime)
        with np.load(Path(folder, "outputs.npz")) as outputs:
            return dict(outputs)


@functools.cache
def _runtime() -> subprocess.Popen[str]:
    """Return the process that runs models, started with the first one: a start takes longer than most models."""
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runtime = subprocess.Popen([str(PYTHON), "-c", SCRIPT], **streams)
    atexit.register(runtime.communicate)  # which closes its stdin
    return runtime


def _ended(runtime: subprocess.Popen[str]) -> str:
    """Return how it ended in the midst of a model; the next model has a new one."""
    _runtime.cache_clear()
    return f"the runtime ended with {runtime.wait()}; what it said stands above"
