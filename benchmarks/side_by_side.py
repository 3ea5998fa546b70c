"""What a text costs the frozen blocks: one thread, all threads on one text, each thread a text, and several in a run.

    python benchmarks/side_by_side.py BUNDLE [--threads 2] [--tokens 11 40] [--texts 400]

Run with the device's environment, alone on the machine; BUNDLE was exported with --method head or top-K. Texts are
random ids; the last column is how `edge-far train` fills its cache where the budget has room. Each cell is the quickest
of four passes over all texts; the bytes are compared: they must be the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bench.environments import describe_machine
from edge_far.bundles.bundle import open_bundle
from edge_far.device.board.memory import use_one_heap
from edge_far.device.engine.backend import ALONE, FillWidth
from edge_far.device.engine.prefix import PrefixRunner, Text
from edge_far.device.planning.parts import FILL_TOKENS

PASSES = 4


def main() -> int:
    """Measure and print; exit 1 where the ways give other numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, nargs="+", default=[11, 40])
    parser.add_argument("--texts", type=int, default=400)
    options = parser.parse_args()
    use_one_heap()
    bundle = open_bundle(options.bundle)
    prefix = bundle.manifest.portable.prefix
    if prefix is None:
        parser.error("this bundle has no frozen blocks of their own: export with --method head or top-K")
    print(f"{describe_machine()['cpu']}, {options.threads} threads\n")
    print("| tokens | one thread | all threads a text | a text a thread | several a run |\n|---:|---:|---:|---:|---:|")
    beside = FillWidth(options.threads)
    widths = ((1, ALONE), (options.threads, ALONE), (options.threads, beside))
    widths += ((options.threads, replace(beside, tokens=FILL_TOKENS)),)
    same = True
    for tokens in options.tokens:
        random = np.random.default_rng(0)
        texts: list[Text] = [(random.integers(1000, 20000, tokens), None) for _ in range(options.texts)]
        cells, found = [], set()
        for threads, width in widths:
            runner = PrefixRunner(bundle, prefix, threads, width=width)
            found.add(b"".join(hidden.tobytes() for hidden in runner.texts(texts)))
            cells.append(f"{1000 * min(_seconds(runner, texts) for _ in range(PASSES)) / len(texts):.2f} ms")
            runner.close()
        same &= len(found) == 1
        print(f"| {tokens} | {' | '.join(cells)} |")
    print("\nthe same bytes" if same else "\nNOT the same bytes")
    return 0 if same else 1


def _seconds(runner: PrefixRunner, texts: list[Text]) -> float:
    began = time.perf_counter()
    for _ in runner.texts(texts):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
