"""What methods are worth on data sets, over seeds: a line a finished run, which is not run again, and a table.

    python -m benchmarks.quality.run --model DIR --data DIR [DIR ...] --out FILE [--seeds 0 1 2]
        [--methods full FAR_10 ...] [--rates 1e-4 ...] [--pooling auto] [--length 64] [--most N]
        [--epochs 4] [--threads 2]
    python -m benchmarks.quality.run --out FILE [--against FAR_10]   the table of what is there, and the differences

A directory holds train and test, and valid where there is one (else a tenth of the training data), in any format of
docs/reference/data-files.md; the labels say the task. Everything is trained in torch in float32, as `edge-far choose`
trains a trial and a device computes it: batches of 32, AdamW, warm-up and linear decay, dropout. Of each method the
learning rate is the one of one grid that does best on the validation data with the first seed; the table has test data
alone. `linear probe` is scikit-learn's objective on the frozen model's outputs. `auto` is what `edge-far choose` takes,
trained on all. A FILE is of one --length and one --epochs: its lines do not tell them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.bench import Bench
from benchmarks.quality.methods import AUTO, GRID, METHODS, PROBE, Method
from benchmarks.quality.table import as_table, best_rate, differences, read_runs

Run = dict[str, Any]


def main() -> int:
    """Run what is missing; print the table."""
    options = parse(sys.argv[1:])
    for data in options.data:
        run_methods(bench_of(options, data), options, options.methods)
    print(as_table(read_runs(options.out)))
    if options.against:
        print("\n" + differences(read_runs(options.out), options.against))
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options; a wrong one ends the process."""
    names = [method.name for method in METHODS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="directory or name of a model")
    parser.add_argument("--data", type=Path, nargs="+", default=[], metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON lines, one a run, added to")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--rates", type=float, nargs="+", default=GRID, help="learning rates to choose among")
    parser.add_argument("--pooling", choices=("auto", "cls", "mean"), default="auto")
    parser.add_argument("--length", type=int, default=64, help="tokens of a text (default: %(default)s)")
    parser.add_argument("--most", type=int, help="examples to train on, the same for all methods")
    parser.add_argument("--epochs", type=int, default=4, help="of every method (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--against", choices=names, metavar="METHOD", help="also print differences to this method")
    options = parser.parse_args(arguments)
    if options.data and not options.model:
        parser.error("--data goes with --model")
    return options


def bench_of(options: argparse.Namespace, data: Path) -> Bench:
    """Return the bench of one data set."""
    torch.set_num_threads(options.threads)
    return Bench(options.model, data, options.pooling, options.length, options.most, options.epochs)


def run_methods(bench: Bench, options: argparse.Namespace, names: list[str]) -> None:
    """Run the missing runs of some methods."""
    source = bench.source
    place = {"data": bench.data.name, "model": source.name, "pooling": source.pooling, "most": options.most}
    for method in METHODS:
        if method.name in names:
            _run_method(bench, method, place, options)


def _run_method(bench: Bench, method: Method, place: Run, options: argparse.Namespace) -> None:
    """Try each rate with the first seed, then the best one with the others; what the file has is not run again."""
    seeds, out = options.seeds, options.out
    wanted = [(seeds[0], rate) for rate in ((0.0,) if method.name in (PROBE, AUTO) else options.rates)]
    for number in range(len(wanted) + len(seeds) - 1):
        if number == len(wanted):
            best = best_rate([run for run in read_runs(out) if _same(run, place | {"method": method.name})])
            wanted += [(seed, best) for seed in seeds[1:]]
        seed, rate = wanted[number]
        key = place | {"method": method.name, "seed": seed, "rate": rate}
        if any(_same(run, key) for run in read_runs(out)):
            continue
        line = json.dumps(key | bench.run(method, seed, rate))
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, file=sys.stderr, flush=True)


def _same(run: Run, key: Run) -> bool:
    return all(run.get(name) == value for name, value in key.items())


if __name__ == "__main__":
    sys.exit(main())
