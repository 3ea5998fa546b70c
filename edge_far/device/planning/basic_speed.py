"""Times what every bundle spends its time on, without a bundle: matrix products, and moving memory.

    python -m edge_far.device.planning.basic_speed THREADS MIB SECONDS OUT

Products run on the stock ONNX Runtime with the options of training, memory is copied by NumPy on one thread. Each
figure is the median of a few runs; ends after SECONDS, with what was measured until then. For people and their reports:
what the plan needs is of a bundle's own operators, and probe.py measures that.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_far.device.board.memory import MIB
from edge_far.device.engine.options import session_options
from edge_far.device.planning.machine_speed import answer_measured
from edge_far.device.planning.one_product import FLOAT32, INT8, product_model

__all__ = ["PRODUCTS", "measure_basics"]

# Rows (tokens), inner and columns: the feed-forward network of MiniLM, then of a base model. 2 x their product FLOPs.
PRODUCTS = ((128, 384, 1536), (512, 768, 3072))
REPEATS = 9  # the first of which warms up
COPIED_MIB = 64
COPIED_SHARE = 8  # of the memory that may be taken, one part in so many


def measure_basics(threads: int, room_mib: float, seconds: float) -> dict[str, Any]:
    """Return the figures: `products` (GFLOP/s; of int8 as many operations), and `copy_gb_s` (bytes read and written).

    Shapes that were not reached in time are not there.
    """
    deadline = time.monotonic() + seconds
    # Memory first: it is over soon, and on a slow board the large products take the rest.
    copied = _copy_speed(min(COPIED_MIB, room_mib / COPIED_SHARE), deadline)
    products = [
        {"kind": kind, "rows": shape[0], "inner": shape[1], "columns": shape[2], **found}
        for shape in PRODUCTS
        for kind in (FLOAT32, INT8)
        if (found := _product_speed(kind, shape, threads, deadline)) is not None
    ]
    return {"threads": threads, "products": products, **copied}


def _product_speed(
    kind: str, shape: tuple[int, int, int], threads: int, deadline: float
) -> dict[str, float | int] | None:
    """Return the seconds of one product and its speed; None where time was up before."""
    if time.monotonic() > deadline:
        return None
    rows, inner, columns = shape
    options = session_options(threads)
    session = ort.InferenceSession(product_model(kind, *shape), options, providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {"left": chance.standard_normal((rows, inner), np.float32)}
    if kind == FLOAT32:
        feeds["right"] = chance.standard_normal((columns, inner), np.float32)
    else:
        feeds["right"] = chance.integers(-127, 128, (inner, columns), np.int8)
        feeds["scales"] = np.full(columns, 1e-2, np.float32)
    seconds, runs = _median(lambda: session.run(["out"], feeds), deadline)
    return {"seconds": seconds, "runs": runs, "gflop_s": round(2e-9 * rows * inner * columns / seconds, 2)}


def _copy_speed(mib: float, deadline: float) -> dict[str, float]:
    source = np.ones(max(1, int(mib)) * int(MIB), np.uint8)
    target = np.empty_like(source)
    seconds, _ = _median(lambda: np.copyto(target, source), deadline)
    return {"copy_mib": source.nbytes / MIB, "copy_gb_s": round(2e-9 * source.nbytes / seconds, 2)}


def _median(action: Callable[[], object], deadline: float) -> tuple[float, int]:
    """Return the median seconds of up to REPEATS runs, without the first where there are more, and how many counted."""
    times: list[float] = []
    while len(times) < REPEATS and (not times or time.monotonic() < deadline):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    counted = times[1:] or times
    return statistics.median(counted), len(counted)


def main(arguments: Sequence[str]) -> int:
    """Measure, and write the document; return the exit code."""
    threads, room_mib, seconds, out = arguments
    return answer_measured(out, lambda: measure_basics(int(threads), float(room_mib), float(seconds)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
