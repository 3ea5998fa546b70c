"""Compare the operator cases' results of several processors (numpy alone).

    python operator_report.py CASES REFERENCE_RESULTS NAME=RESULTS...

One row a case: the reference processor's largest error against NumPy's double precision, then each other
processor's largest absolute difference from the reference, over all outputs and both packings. Exit code 1
when a case did not run, or differs by more than its tolerance (parts of the largest value of the output).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

PACKINGS = ("packed", "mapped")


def load_outputs(results: Path, run: str) -> list[np.ndarray] | str:
    """The outputs of one run, or why there are none."""
    path = results / f"{run}.npz"
    if path.exists():
        with np.load(path) as arrays:
            return [arrays[name] for name in arrays.files]
    status = results / "status.jsonl"
    states = [json.loads(line) for line in status.read_text().splitlines()] if status.exists() else []
    last = [entry for entry in states if entry["run"] == run]
    if not last:
        return "not run"
    return "CRASHED" if last[-1]["state"] == "begun" else f"FAILED: {last[-1]['message']}"


def largest_difference(left: list[np.ndarray], right: list[np.ndarray]) -> tuple[float, float]:
    """Largest absolute difference over all outputs, and as a part of the output's largest value."""
    absolute = relative = 0.0
    for a, b in zip(left, right, strict=False):
        if a.shape != b.shape or not np.isfinite(a).all():
            return float("inf"), float("inf")
        difference = float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
        absolute = max(absolute, difference)
        relative = max(relative, difference / max(float(np.max(np.abs(b))), 1e-30))
    return absolute, relative


def compare(results: Path, stem: str, oracle: dict[str, list[np.ndarray] | str], tolerance: float) -> tuple[str, bool]:
    """One cell of the table and whether it is within the tolerance."""
    worst, good = 0.0, True
    for packing in PACKINGS:
        outputs, expected = load_outputs(results, f"{stem}.{packing}"), oracle[packing]
        if isinstance(outputs, str):
            return outputs, False
        if isinstance(expected, str):
            return "-", False
        absolute, relative = largest_difference(outputs, expected)
        worst, good = max(worst, absolute), good and relative <= tolerance
    return ("0" if worst == 0 else f"{worst:.1e}") + ("" if good else " TOO FAR"), good


def main() -> int:
    cases, reference = Path(sys.argv[1]), Path(sys.argv[2])
    others = {name: Path(path) for name, _, path in (word.partition("=") for word in sys.argv[3:])}
    header = ["operator", "x86 error", *others]
    rows, all_good = [], True
    for case in json.loads((cases / "cases.json").read_text()):
        stem, tolerance = case["stem"], case["tolerance"]
        with np.load(cases / f"{stem}.npz") as arrays:
            truth: dict[str, list[np.ndarray] | str] = {key: [arrays["expected"]] for key in PACKINGS}
        cells = [compare(reference, stem, truth, max(tolerance, 1e-5))]
        oracle = {packing: load_outputs(reference, f"{stem}.{packing}") for packing in PACKINGS}
        cells += [compare(path, stem, oracle, tolerance) for path in others.values()]
        all_good = all_good and all(good for _, good in cells)
        rows.append([case["name"], *(text for text, _ in cells)])
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
