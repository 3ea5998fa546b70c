"""Labels that were withheld at export, learnt on the device: HWU64 intents, all-MiniLM-L6-v2, five nights, three seeds.

    .venv/bin/python scripts/new_labels.py --data HWU64 [--seeds 0 1 2] [--export '--method head'] [--out DIR]

As scripts/adaptation_demo.py, but eight intents, drawn by the seed, are withheld: the bundle has places for them, the
first two batches do not have them, and all their training examples arrive with batches three to five. Beside it the
same nights with a bundle that knew all intents from the start. After each night: the accuracy on the test texts of the
old intents, and of the withheld ones. Prints a Markdown table; takes up again where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import adaptation_demo as demo

WITHHELD, FIRST = 8, 3
KINDS = {"new": "learnt on the device", "known": "known from the start"}


def main() -> int:
    """Run every seed with both bundles, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="HWU64")
    parser.add_argument("--out", type=Path, default=demo.REPOSITORY / "build" / "new-labels", metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--export", default="--method head", metavar="'OPTIONS'", help="default: %(default)s")
    options = parser.parse_args()
    for seed in options.seeds:
        for kind in KINDS:
            out = options.out / f"{kind}-{seed}"
            out.mkdir(parents=True, exist_ok=True)
            write_data(options.data, out, seed, withheld=kind == "new")
            words = [*shlex.split(options.export), *(["--reserve-labels", str(WITHHELD)] if kind == "new" else [])]
            demo.make_bundle(out, seed, words)
            demo.run_cycles(out)
    print(as_table(options.out, options.seeds))
    return 0


def write_data(data: Path, out: Path, seed: int, *, withheld: bool) -> None:
    """Write every file that a seed needs; the test texts of withheld intents are the file held_out.jsonl."""
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for record in demo.read(data / "train"):
        by_label[record["label"]].append(record)
    labels = sorted(label for label, records in by_label.items() if len(records) >= 2 * WITHHELD)
    chosen = set(random.Random(seed).sample(labels, WITHHELD))
    host, old, new = [], [], []
    for label, records in by_label.items():
        middle = (len(records) + 1) // 2
        if label not in chosen:
            host += records[:middle]
            old += records[middle:]
        else:
            host += [] if withheld else records[:middle]
            new += records if withheld else records[middle:]
    draw = random.Random(seed)
    draw.shuffle(old)
    draw.shuffle(new)
    demo.write(out / "host.jsonl", host)
    replay = [record for record in host if record["label"] not in chosen]
    demo.write(out / "replay.jsonl", draw.sample(replay, min(demo.REPLAY, len(replay))))
    demo.write(out / "base.jsonl", [r for r in demo.read(data / "valid") if r["label"] not in chosen])
    tests = demo.read(data / "test")
    demo.write(out / "test.jsonl", [record for record in tests if record["label"] not in chosen])
    demo.write(out / "held_out.jsonl", [record for record in tests if record["label"] in chosen])
    nights, late = demo.SPOOL_BATCHES, demo.SPOOL_BATCHES - FIRST + 1
    for number in range(1, nights + 1):
        part = old[(number - 1) * len(old) // nights : number * len(old) // nights]
        if number >= FIRST:
            place = number - FIRST
            part = part + new[place * len(new) // late : (place + 1) * len(new) // late]
        draw.shuffle(part)
        demo.write(out / f"batch-{number}.jsonl", part)
    (out / "profile.yaml").write_text(demo.PROFILE.format(extra="epochs: 2"))


def as_table(out: Path, seeds: list[int]) -> str:
    """Return means and deviations over the seeds, a row a night."""
    heads = [f"{name}: {which}" for name in KINDS.values() for which in ("old", "withheld", "released")]
    lines = ["| night | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    rows = {kind: [_results(out / f"{kind}-{seed}") for seed in seeds] for kind in KINDS}
    for night in range(demo.SPOOL_BATCHES + 1):
        cells = []
        for kind in KINDS:
            entries = [results[night] for results in rows[kind]]
            cells += [_spread([_share(entry["right"][name]) for entry in entries]) for name in ("test", "held_out")]
            released = sum(entry.get("outcome") == "released" for entry in entries)
            cells.append(f"{released} of {len(entries)}" if night else "")
        lines.append(f"| {night or 'factory'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def _share(right: str) -> float:
    return 100 * right.count("1") / len(right)


def _spread(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
