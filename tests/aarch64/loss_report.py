"""Compare the losses of the same training on several processors (standard library alone).

    python loss_report.py x86=RUNS NAME=RUNS...

RUNS holds one run a bundle (tiny-fp32, tiny-int8), each with its log.jsonl. One row a bundle: the first
processor's losses, then every other one's largest difference from them. Exit code 1 when a run has no or
another number of steps, or fp32 differs by more than 1e-4; the difference of int8 is stated, not judged.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

BUNDLES = {"tiny-fp32": 1e-4, "tiny-int8": math.inf}  # -> largest allowed difference of a loss


def read_losses(run: Path) -> list[float]:
    """The loss of every optimiser step of a run, in order; none where there is no log."""
    log = run / "log.jsonl"
    events = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [event["loss"] for event in events if event["event"] == "step"]


def compare(losses: list[float], expected: list[float], allowed: float) -> tuple[str, bool]:
    """One cell of the table and whether it is good."""
    if not losses or len(losses) != len(expected) or not all(map(math.isfinite, losses)):
        return f"FAILED: {len(losses)} losses", False
    worst = max(abs(a - b) for a, b in zip(losses, expected, strict=True))
    return (f"{worst:.1e}", True) if worst <= allowed else (f"{worst:.1e} TOO FAR", False)


def main() -> int:
    (reference, reference_runs), *others = [
        (name, Path(path)) for name, _, path in (word.partition("=") for word in sys.argv[1:])
    ]
    rows, all_good = [["bundle", f"losses on {reference}", *(name for name, _ in others)]], True
    for bundle, allowed in BUNDLES.items():
        expected = read_losses(reference_runs / bundle)
        cells = [compare(read_losses(runs / bundle), expected, allowed) for _, runs in others]
        all_good = all_good and len(expected) == 3 and all(good for _, good in cells)
        shown = " ".join(f"{loss:.6f}" for loss in expected) or "FAILED: none"
        rows.append([bundle, shown, *(text for text, _ in cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
