"""Runs a model on the stock ONNX Runtime of the device's environment, for tests of the workstation's.

onnxruntime-training brings ONNX Runtime 1.19, which does not know the operator Attention.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.tiny_cases import REPOSITORY

PYTHON = REPOSITORY / ".venv-device" / "bin" / "python"
SCRIPT = """
import sys
import numpy as np
import onnxruntime as ort

folder = sys.argv[1]
options = ort.SessionOptions()
options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
options.intra_op_num_threads = 1
options.log_severity_level = 3
session = ort.InferenceSession(f"{folder}/model.onnx", options, ["CPUExecutionProvider"])
with np.load(f"{folder}/feeds.npz") as arrays:
    feeds = dict(arrays)
names = [output.name for output in session.get_outputs()]
np.savez(f"{folder}/outputs.npz", **dict(zip(names, session.run(names, feeds), strict=True)))
"""


def run_on_stock_runtime(model: bytes, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every output of a model (its constants inside) by name; skips where there is no device environment."""
    if not PYTHON.is_file():
        pytest.skip("the device's environment is not set up: make env-device")
    with tempfile.TemporaryDirectory(prefix="edge-far-test-") as folder:
        Path(folder, "model.onnx").write_bytes(model)
        np.savez(Path(folder, "feeds.npz"), **feeds)
        done = subprocess.run([str(PYTHON), "-c", SCRIPT, folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with np.load(Path(folder, "outputs.npz")) as outputs:
            return dict(outputs)
