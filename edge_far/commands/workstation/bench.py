"""Measure time and memory of training, the same work in every row, against PyTorch and onnxruntime-training.

Each row is a fresh process: a model of the geometry with random weights, batches of ids over the whole vocabulary,
clipping and the optimiser included. Rows that this machine lacks the packages for are left out and named. On a
device, name a bundle: its own row is measured. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge_far.bench.cases import ENGINES, METHODS, PRECISIONS, method_named
from edge_far.bench.work.geometries import GEOMETRIES
from edge_far.commands.arguments import SEEDS, Number
from edge_far.commands.common import add_threads_argument
from edge_far.console import Console
from edge_far.device.optimizers.registry import DEFAULT_OPTIMIZER, OPTIMIZERS
from edge_far.errors import ConfigError, InputMissing, Unavailable, UsageError
from edge_far.json_file import Within
from edge_far.process.privacy import keep_caches_together
from edge_far.storage import check_output

EXAMPLES = """examples:
  edge-far bench                                         DistilBERT, 16 x 128 tokens: all engines, about 15 minutes
  edge-far bench --model minilm --length 64 --out bench  with bench.json, bench.md and bench.png
  edge-far bench --engines edge-far --methods full far-10 far-40 --precisions int8
  edge-far bench --only "torch full * trained" "far-10 int8" "top-2-heads"
  edge-far bench --model bundle                          on a device

Bundles are compiled into the folder for temporary files (TMPDIR): about 0.6 GB each for DistilBERT.
"""

LARGEST_OPTION = 4096
COUNTS = Within(1, LARGEST_OPTION)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `edge-far bench`."""
    parser.add_argument(
        "--model",
        default="distilbert",
        metavar="MODEL",
        help=f"{', '.join(GEOMETRIES)}, a directory with a config.json, or a bundle (default: %(default)s)",
    )
    _add_number(parser, "batch", COUNTS, 16, "examples a step (default: %(default)s)")
    _add_number(parser, "micro-batch", COUNTS, None, "examples at a time (default: the whole batch)")
    _add_number(parser, "length", Within(8, LARGEST_OPTION), 128, "tokens, a multiple of 8 (default: %(default)s)")
    add_threads_argument(parser, "default: one a core, as far as a quota allows")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--retention", type=float, default=0.1, help="share of learners of 'far' (default: %(default)s)")
    rows.add_argument(
        "--methods",
        nargs="+",
        default=list(METHODS),
        metavar="METHOD",
        help="full, far, far-R for R %%, frozen-ffn; on edge-far alone: head, top-K, and top-K-heads or far-heads with "
        f"attention split by heads (default: {' '.join(METHODS)})",
    )
    rows.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="ROW",
        help="of these rows, those with such words in their name, * for anything: 'torch full', 'top-* fill'",
    )
    rows.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="default: all")
    rows.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        default=["int8", "fp32-compact", "fp32"],
        help="of edge-far's frozen weights; methods of edge-far alone take the first (default: all but int8-weights)",
    )
    rows.add_argument(
        "--pooling", choices=("cls", "mean"), default="cls", help="of a geometry's classifier (default: %(default)s)"
    )
    rows.add_argument("--embeddings", choices=("frozen", "train"), default="frozen", help="default: %(default)s")
    rows.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default=DEFAULT_OPTIMIZER,
        help="of edge-far; the other engines' rows have AdamW (default: %(default)s)",
    )
    rows.add_argument(
        "--step-graph",
        choices=("step", "step-lean", "step-remat"),
        default="step",
        help="of edge-far, where a row has it: recompute cheap values, or whole blocks (default: %(default)s)",
    )
    rows.add_argument("--dropout", action="store_true", help="train with the model's dropout")
    measuring = parser.add_argument_group("measuring")
    _add_number(measuring, "steps", COUNTS, 5, "measured steps (default: %(default)s)")
    _add_number(measuring, "warmup", Within(0, LARGEST_OPTION), 2, "steps before (default: %(default)s)")
    _add_number(measuring, "rounds", COUNTS, 2, "processes a row (default: %(default)s)")
    _add_number(measuring, "seed", SEEDS, 0, "default: %(default)s")
    measuring.add_argument(
        "--device-python",
        type=Path,
        metavar="PATH",
        help="interpreter with the stock onnxruntime, for edge-far's rows (default: .venv-device beside this one)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="new directory for bench.json, bench.md and bench.png")


def _add_number(group: argparse._ActionsContainer, name: str, within: Within, default: int | None, help: str) -> None:
    group.add_argument(
        f"--{name}",
        action=Number,
        type=int,
        within=within,
        refusal=UsageError,
        default=default,
        metavar="N",
        help=help,
    )


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure; the document holds the set-up, `machine`, `rows`, `ratios` and `left_out`."""
    _check(options)
    from edge_far.bench.pipeline import Settings, run_bench
    from edge_far.device.board.cpu import cpu_share

    keep_caches_together()
    retention = options.retention
    settings = Settings(
        model=options.model,
        batch=options.batch,
        micro_batch=min(options.micro_batch or options.batch, options.batch),
        length=options.length,
        threads=options.threads or cpu_share().most_threads,
        methods=tuple(method_named(name, retention) for name in options.methods),
        engines=tuple(options.engines),
        precisions=tuple(options.precisions),
        embeddings=options.embeddings,
        dropout=options.dropout,
        steps=options.steps,
        warmup=options.warmup,
        rounds=options.rounds,
        seed=options.seed,
        optimizer=options.optimizer,
        step_graph=options.step_graph,
        pooling=options.pooling,
        only=tuple(options.only),
        device_python=options.device_python,
    )
    document = run_bench(settings, console)
    if not document["rows"]:
        reasons = "; ".join(dict.fromkeys(f"{row['row']}: {row['reason']}" for row in document["left_out"]))
        raise Unavailable(f"no row can be measured here: {reasons}", hint="on a device, name a bundle: --model BUNDLE")
    if options.out:
        _write(document, options.out, console)
    return document


def render(document: dict[str, Any]) -> str:
    """Return the tables."""
    from edge_far.bench.table import as_markdown

    return as_markdown(document)


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be measured before minutes are spent."""
    if options.length % 8:
        raise UsageError(f"must be a multiple of 8, not {options.length}", where="--length")
    if not 0 < options.retention < 1:
        raise ConfigError(
            f"must lie between 0 and 1, not {options.retention}",
            where="--retention",
            hint="the methods full and frozen-ffn are retention 1 and 0",
        )
    if options.model not in GEOMETRIES and not Path(options.model).is_dir():
        raise InputMissing(
            "no such geometry or directory", where=options.model, hint=f"geometries: {', '.join(GEOMETRIES)}"
        )
    if options.out is not None:
        check_output(options.out)


def _write(document: dict[str, Any], out: Path, console: Console) -> None:
    from edge_far.bench.plot import draw_bench
    from edge_far.storage import staged_directory, write_atomically, write_json

    with staged_directory(out) as directory:
        write_json(directory / "bench.json", document)
        write_atomically(directory / "bench.md", f"{render(document)}\n".encode())
        try:
            draw_bench(document, directory / "bench.png")
        except Unavailable as error:
            console.warn(f"left out bench.png: {error}")
