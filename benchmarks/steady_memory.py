"""Does memory stay flat? The resident set over a thousand optimiser steps of mixed lengths.

    python benchmarks/steady_memory.py [--steps 1000] [--model minilm] [--longest 64] [--dropout] [--out FILE]

Run with the workstation's environment; the steps run in a fresh process of the device's, with the trainer's own pieces
(portable backend, AdamW, one heap), on a FAR_10 int8 bundle of random weights. Every step draws a batch whose longest
example falls into a seeded random bucket of 8 tokens, up to --longest; each bucket occurs within the first 50 steps.
Prints the resident set after steps 50, 100, 200 ...; exits 1 where the last differs by more than 2 % from that after
step 50.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edge_far.bench.environments import describe_machine, python_or_exit
from edge_far.bench.work.task import CLIP_NORM, LEARNING_RATE
from edge_far.bundles.bundle import open_bundle
from edge_far.console import Console
from edge_far.device.board.memory import resident_set, use_one_heap
from edge_far.device.engine.backend import DropoutKey
from edge_far.storage import write_json
from edge_far.texts.batches import Batch

SETTLED, EVERY, MULTIPLE = 50, 100, 8
LARGEST_DRIFT = 0.02


def main() -> int:
    """Compile, run the child, judge what it answers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--model", default="minilm", help="geometry, or a directory with a config.json")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--longest", type=int, default=64, help="tokens, a multiple of 8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dropout", action="store_true")
    parser.add_argument("--device-python", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE")
    parser.add_argument("--bundle", type=Path, help=argparse.SUPPRESS)  # given to the child alone
    options = parser.parse_args()
    if options.longest % MULTIPLE or not MULTIPLE <= options.longest <= MULTIPLE * SETTLED:
        parser.error(f"--longest is {options.longest}, not a multiple of {MULTIPLE} up to {MULTIPLE * SETTLED}")
    if options.steps <= SETTLED:
        parser.error(f"--steps is {options.steps}, not more than {SETTLED}")
    if options.bundle is not None:
        print(json.dumps(train(options)))
        return 0
    python = python_or_exit("edge-far", options.device_python)
    machine = describe_machine()
    document = {"machine": machine, **run_child(options, python)}
    if options.out:
        write_json(options.out, document)
    print(as_markdown(document))
    return 0 if abs(document["drift"]) <= LARGEST_DRIFT else 1


def run_child(options: argparse.Namespace, python: Path) -> dict[str, Any]:
    """Compile the bundle and train on it in a fresh process."""
    from edge_far.bench.work.bundles import compile_random

    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as folder:
        bundle = compile_random(
            options.model,
            Path(folder, "bundle"),
            retention=0.1,
            precision="int8",
            embeddings="frozen",
            dropout=options.dropout,
            with_ort=False,
        )
        words = ["--bundle", bundle.root, "--steps", options.steps, "--model", options.model, "--batch", options.batch]
        words += ["--longest", options.longest, "--threads", options.threads, "--seed", options.seed]
        command = [str(python), __file__, *map(str, words), *(["--dropout"] if options.dropout else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Take the steps in this process; return the resident set over time."""
    from edge_far.bundles.arrays import read_arrays
    from edge_far.device.engine.session import PortableBackend
    from edge_far.device.optimizers.base import clipped_step
    from edge_far.device.optimizers.registry import make_optimizer

    use_one_heap()
    bundle = open_bundle(options.bundle)
    manifest = bundle.manifest
    parameters = read_arrays(bundle.path("learners.safetensors"))
    backend = PortableBackend(bundle, parameters, options.threads, dropout=options.dropout)
    no_decay = frozenset(parameter.name for parameter in manifest.portable.parameters if not parameter.decay)
    optimizer = make_optimizer(
        "adamw", backend.parameters, weight_decay=manifest.defaults.weight_decay, no_decay=no_decay
    )
    random = np.random.default_rng(options.seed)
    lengths = bucket_of_step(options.steps, options.longest, random)
    rows = []
    with Console().progress(options.steps, "steps") as progress:
        for step, length in enumerate(lengths, start=1):
            batch = make_batch(options.batch, int(length), manifest.model.vocabulary, len(manifest.labels), random)
            key = DropoutKey(options.seed, step, 0) if options.dropout else None
            backend.accumulate(batch, 1.0 / options.batch, key)
            clipped_step(optimizer, backend.gradients, LEARNING_RATE, CLIP_NORM)
            if step == SETTLED or step % EVERY == 0 or step == options.steps:
                memory = resident_set()
                rows.append({"step": step, "rss_mib": memory.now_mib, "peak_rss_mib": memory.peak_mib})
                progress.update(step, f"resident set {memory.now_mib:.1f} MiB")
    settled = rows[0]["rss_mib"]
    return {
        **{name: getattr(options, name) for name in ("model", "batch", "longest", "threads", "dropout", "seed")},
        "buckets_in_first_steps": sorted({int(length) for length in lengths[:SETTLED]}),
        "rows": rows,
        "drift": rows[-1]["rss_mib"] / settled - 1,
    }


def bucket_of_step(steps: int, longest: int, random: np.random.Generator) -> np.ndarray:
    """Return each step's padded length; the first 50 hold every bucket, in random order."""
    buckets = np.arange(MULTIPLE, longest + 1, MULTIPLE)
    first = np.concatenate([buckets, random.choice(buckets, SETTLED - len(buckets))])
    return np.concatenate([random.permutation(first), random.choice(buckets, steps - SETTLED)])


def make_batch(rows: int, length: int, vocabulary: int, labels: int, random: np.random.Generator) -> Batch:
    """Return examples of 1 to `length` tokens, the first of them full."""
    held = random.integers(1, length, rows, endpoint=True)
    held[0] = length
    mask = (np.arange(length) < held[:, None]).astype(np.int64)
    ids = random.integers(0, vocabulary, mask.shape, np.int64) * mask
    return Batch(ids, mask, None, random.integers(0, labels, rows, np.int64))


def as_markdown(document: dict[str, Any]) -> str:
    """Return set-up, table and verdict."""
    machine, buckets = document["machine"], document["buckets_in_first_steps"]
    lines = [
        f"{document['model']} FAR_10 int8, batch {document['batch']}, {document['threads']} threads, dropout "
        f"{'on' if document['dropout'] else 'off'}; {machine['cpu']}, {machine['date']}, edge-far "
        f"{machine['edge_far']}; {len(buckets)} lengths, {buckets[0]} to {buckets[-1]} tokens, all within the "
        f"first {SETTLED} steps",
        "",
        "| after step | resident set, MiB | peak, MiB |",
        "|---:|---:|---:|",
        *(f"| {row['step']} | {row['rss_mib']:.1f} | {row['peak_rss_mib']:.1f} |" for row in document["rows"]),
        "",
        f"After the last step {document['drift']:+.2%} of that after step {SETTLED}: the aim of {LARGEST_DRIFT:.0%} is "
        + ("met" if abs(document["drift"]) <= LARGEST_DRIFT else "not met"),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
