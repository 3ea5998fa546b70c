"""Run a whole training step of every tiny bundle on this processor, and compare its gradients with torch's.

    python -m tests.aarch64.gradient_run OUT

Every architecture, method, task and precision that tests/tiny_cases.py has. OUT/status.jsonl gets a line before and one
after each bundle, the latter with the largest error of a parameter's gradient; OUT/NAME.npz holds the gradients. A
bundle that was begun is not run again, so that one that crashes is passed over by the next start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import open_bundle
from edge_far.device.engine.session import PortableBackend
from tests.tiny_cases import (
    BATCH_SHAPES,
    BUNDLES,
    CASES,
    DROPOUT_BATCH,
    DROPOUT_KEY,
    Oracle,
    gradient_errors,
)


def main() -> int:
    """Run what was not begun."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    status = out / "status.jsonl"
    begun = {json.loads(line)["case"] for line in status.read_text().splitlines()} if status.exists() else set()
    for case in CASES:
        if case.name in begun:
            continue
        with status.open("a") as file:
            file.write(json.dumps({"case": case.name, "state": "begun"}) + "\n")
        try:
            told: dict[str, Any] = {"state": "done", **run_case(case.name, out / f"{case.name}.npz")}
        except Exception as error:  # the report names it; the others go on
            told = {"state": "failed", "message": f"{type(error).__name__}: {error}"}
        with status.open("a") as file:
            file.write(json.dumps({"case": case.name, **told}) + "\n")
    return 0


def run_case(name: str, out: Path) -> dict[str, Any]:
    """Accumulate each batch of the oracle, and one with dropout; return the largest error against torch."""
    bundle, oracle = open_bundle(BUNDLES / name), Oracle(BUNDLES / f"{name}.oracle.npz")
    learners, found, worst = read_arrays(bundle.path("learners.safetensors")), {}, 0.0
    runs: list[tuple[int | str, bool]] = [(number, False) for number in range(len(BATCH_SHAPES))]
    if "dropout.loss" in oracle.arrays:
        runs.append(("dropout", True))
    for run, dropout in runs:
        backend = PortableBackend(bundle, learners, threads=1, dropout=dropout)
        try:
            batch = oracle.batch(DROPOUT_BATCH if isinstance(run, str) else run)
            backend.accumulate(batch, 1 / len(batch.labels), DROPOUT_KEY if dropout else None)
            worst = max(worst, *gradient_errors(backend.gradients, oracle.gradients(run)).values())
            found |= {f"{run}.{key}": array.copy() for key, array in backend.gradients.items()}
        finally:
            backend.close()
    np.savez(out, allow_pickle=False, **found)
    return {"worst": worst}


if __name__ == "__main__":
    sys.exit(main())
