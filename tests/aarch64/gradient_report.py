"""Compare whole training steps of the tiny bundles on several processors (numpy alone).

    python -m tests.aarch64.gradient_report x86=RESULTS NAME=RESULTS...

One row a bundle: on the first processor and on each other one the largest error of a parameter's gradient against
torch's; and how far that processor's gradients are from the first one's. In fp32 the first must be below 1e-5, as in
tests/device/engine/test_session.py; where answers have a span, torch's own rounding is what is left of some biases.
Where weights are in 8 or 16 bits the errors are stated. Exit code 1 for a bundle that did not run, or is too far.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_cases import CASES, Case, gradient_errors

ALLOWED = 1e-5
ALLOWED_OF_SPANS = 1e-4


def main() -> int:
    """Print the table."""
    results = {name: Path(path) for name, _, path in (word.partition("=") for word in sys.argv[1:])}
    first = next(iter(results.values()))
    rows, all_good = [["bundle", "precision", *results]], True
    for case in CASES:
        cells = [cell(case, path, None if path == first else first) for path in results.values()]
        all_good = all_good and all(good for _, good in cells)
        rows.append([case.name, case.precision, *(text for text, _ in cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0 if all_good else 1


def cell(case: Case, results: Path, reference: Path | None) -> tuple[str, bool]:
    """Return what one processor made of a bundle, and whether it is good."""
    told = last_state(results / "status.jsonl", case.name)
    if told is None:
        return "not run", False
    if told["state"] != "done":
        return "CRASHED" if told["state"] == "begun" else f"FAILED: {told['message']}", False
    allowed = ALLOWED_OF_SPANS if case.task == "answer" else ALLOWED
    good = bool(np.isfinite(told["worst"])) and (case.precision != "fp32" or told["worst"] <= allowed)
    text = f"{told['worst']:.1e}" + ("" if good else " TOO FAR")
    if reference is None or not (reference / f"{case.name}.npz").exists():
        return text, good
    apart = difference(results / f"{case.name}.npz", reference / f"{case.name}.npz")
    return f"{text} ({apart:.1e})", good


def last_state(status: Path, name: str) -> dict[str, Any] | None:
    """Return the last line about a bundle."""
    lines = [json.loads(line) for line in status.read_text().splitlines()] if status.exists() else []
    return next((line for line in reversed(lines) if line["case"] == name), None)


def difference(left: Path, right: Path) -> float:
    """Return the largest error of a gradient against another processor's."""
    with np.load(left) as a, np.load(right) as b:
        return max(gradient_errors(dict(a), dict(b)).values())


if __name__ == "__main__":
    sys.exit(main())
