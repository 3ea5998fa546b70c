"""The arena of a process: one region for all shapes, given back when a backend is closed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.backends import OLDEST_ONNXRUNTIME

pytestmark = pytest.mark.device

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from edge_far.bundles.bundle import open_bundle
from edge_far.device.engine.arena import make_arena
from edge_far.bundles.arrays import read_arrays
from edge_far.texts.batches import Batch
from edge_far.device.board.memory import release_free_memory, resident_set, use_one_heap
from edge_far.device.engine.session import PortableBackend

use_one_heap()
bundle = open_bundle(Path(sys.argv[1]))
make_arena(256.0)
make_arena(1.0)  # changes nothing
backend = PortableBackend(bundle, read_arrays(bundle.path("learners.safetensors")), 1, dropout=False)
vocabulary = bundle.manifest.model.vocabulary


def run(rows, length):
    ids = np.arange(rows * length).reshape(rows, length) % vocabulary
    backend.accumulate(Batch(ids, np.ones_like(ids), None, np.zeros(rows, np.int64)), 1.0 / rows, None)
    release_free_memory()
    return resident_set().now_mib


if sys.argv[2] == "evaluate first":
    ids = np.ones((32, 64), np.int64)
    backend.logits(Batch(ids, ids, None, ids[:, 0]))
sizes = [run(*shape) for shape in ((64, 64), (1, 8), (512, 64), (64, 64), (512, 32), (512, 64))]
backend.close()
del backend
release_free_memory()
print(*sizes, resident_set().now_mib)
"""


@pytest.mark.parametrize("order", ["train first", "evaluate first"])
def test_all_shapes_share_one_region_which_is_given_back(order: str, tiny_bundle: Callable[[str], Bundle]) -> None:
    import onnxruntime

    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < OLDEST_ONNXRUNTIME:
        pytest.skip("needs the device's ONNX Runtime")
    root = tiny_bundle("tiny-fp32").root
    command = [sys.executable, "-c", PROGRAM, str(root), order]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small, smaller, large, *after, closed = map(float, done.stdout.split())
    assert large > small + 20, "the shapes differ enough to tell"
    assert abs(smaller - small) < 2
    assert max(after) < large + 2, "nothing is held for one shape beside another"
    assert closed < small, "what the largest shape took is back"
