"""What a training example costs on each rung of the ladder, counted from the graphs: full fine-tuning is 1.

    python benchmarks/ladder_work.py [--geometries minilm distilbert bert-base] [--length 128] [--batch 16] [--json]

Run with the workstation's environment; nothing is timed. FLOPs are those of products and attentions, whatever their
precision; bytes are what operators read and write, and the optimiser's (AdamW, float32) share of an example. `step` is
an example from the second epoch on, when the activations at the cut are there; `first` is one of the first epoch, with
the prefix, which computes a text by itself; `job` is the mean over four epochs. Full fine-tuning trains all, embeddings
too, and computes all tokens in the last block, as PyTorch does. The other rungs learn in a tenth of the FFN nodes and
of the heads, at least one, in int8, twice: with the architecture's own head on the first token (cls), and with a head
on the mean of all tokens (mean).
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edge_far.bench.work.geometries import GEOMETRIES
from edge_far.bench.work.models import LABELS, make_config, make_model
from edge_far.bench.work.task import random_batch
from edge_far.bench.work.traffic import UPDATE_BYTES, graph_bytes
from edge_far.compile.emit.costs import graph_costs
from edge_far.compile.graph_passes import CompileOptions, build_portable_graphs
from edge_far.device.planning.work import graph_flops
from edge_far.far.heads import attention_share
from edge_far.far.method import cut_of, learning_modules, select_above_cut
from edge_far.far.nodes import architecture_of, block_paths
from edge_far.far.reconfigure import reconfigure, trained_parameters

RETENTION, EPOCHS, SEED = 0.1, 4, 0
# AdamW keeps two float32 for each trained one; both are read and written.
STATE_BYTES = 8
SAMPLE_SHAPE = (2, 16)


@dataclass(frozen=True)
class Rung:
    """One row: the method, whether attention is split by heads, and what the head reads: cls or mean."""

    name: str
    method: str
    heads: bool
    pooling: str

    @property
    def full(self) -> bool:
        """Say whether everything trains."""
        return self.method == "full"


@dataclass(frozen=True)
class Work:
    """FLOPs and bytes of one example, of the step and of the prefix, and what trains."""

    step_flops: float
    step_bytes: float
    prefix_flops: float
    prefix_bytes: float
    trained: int


RUNGS = [Rung("full", "full", heads=False, pooling="cls")] + [
    Rung(f"{name}, {pooling}", method, heads, pooling)
    for name, method, heads in (
        ("far", "far", False),
        ("far, heads", "far", True),
        ("top-2, heads", "top-2", True),
        ("top-1, heads", "top-1", True),
        ("head", "head", False),
    )
    for pooling in ("cls", "mean")
]


def main() -> int:
    """Count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--geometries", nargs="+", choices=list(GEOMETRIES), default=["minilm", "distilbert", "bert-base"]
    )
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for geometry in options.geometries:
        rows += list(relative(geometry, count_rungs(geometry, options.batch, options.length)))
    print(json.dumps(rows) if options.json else as_markdown(rows, options.batch, options.length))
    return 0


def count_rungs(geometry: str, batch: int, length: int) -> dict[str, Work]:
    """Return the work of every rung on a geometry with random weights, by name."""
    config = make_config(geometry, dropout=False)
    models = {
        pooling: make_model(config, attention="eager", seed=SEED, pooling=pooling)
        for pooling in sorted({rung.pooling for rung in RUNGS})
    }
    found = {}
    for rung in RUNGS:
        print(f"{geometry}: {rung.name}", file=sys.stderr, flush=True)
        found[rung.name] = count(copy.deepcopy(models[rung.pooling]), rung, batch, length)
    return found


def count(model: torch.nn.Module, rung: Rung, batch: int, length: int) -> Work:
    """Compile a model, which is reconfigured in place, as a rung and count its graphs."""
    cut = cut_of(rung.method, len(block_paths(model)))
    retention = 1.0 if rung.full else RETENTION
    share = attention_share(None, RETENTION, model.config.num_attention_heads) if rung.heads else None
    reconfigure(model, select_above_cut(model, "random", retention, share, cut, seed=SEED))
    trained = trained_parameters(model, "train" if rung.full else "frozen", cut)
    size = sum(parameter.numel() for parameter in trained.values())
    options = CompileOptions(
        "fp32" if rung.full else "int8",
        dropout=False,
        max_positions=model.config.max_position_embeddings,
        first_token_only=not rung.full,
        cut_before=tuple(learning_modules(model, cut, list(trained))) if cut else (),
    )
    sample = [random_batch(np.random.default_rng(SEED), SAMPLE_SHAPE, model.config.vocab_size, LABELS)]
    model.requires_grad_(False)
    graphs = build_portable_graphs(model, architecture_of(model).name, list(trained), options, sample)
    optimizer = (UPDATE_BYTES + 2 * STATE_BYTES) * size / batch
    step, prefix = graphs.step.graph, graphs.prefix.graph if graphs.prefix is not None else None
    return Work(
        step_flops=graph_flops(graph_costs(step), batch, length) / batch,
        step_bytes=graph_bytes(step).at(batch, length) / batch + optimizer,
        prefix_flops=0.0 if prefix is None else graph_flops(graph_costs(prefix), 1, length),
        prefix_bytes=0.0 if prefix is None else graph_bytes(prefix).at(1, length),
        trained=size,
    )


def relative(geometry: str, found: Mapping[str, Work]) -> Iterator[dict[str, Any]]:
    """Yield a row a rung: shares of full fine-tuning's work, which is the first."""
    full = next(iter(found.values()))
    for name, work in found.items():
        row: dict[str, Any] = {"geometry": geometry, "rung": name, "trained": work.trained}
        for unit, step, prefix, whole in (
            ("flops", work.step_flops, work.prefix_flops, full.step_flops),
            ("bytes", work.step_bytes, work.prefix_bytes, full.step_bytes),
        ):
            row[f"step_{unit}"] = step / whole
            row[f"first_{unit}"] = (step + prefix) / whole
            row[f"job_{unit}"] = (step + prefix / EPOCHS) / whole
        row["gflop"], row["mib"] = work.step_flops / 1e9, work.step_bytes / 2**20
        yield row


def as_markdown(rows: Sequence[Mapping[str, Any]], batch: int, length: int) -> str:
    """Return the table."""
    columns = ("step_flops", "first_flops", "job_flops", "step_bytes", "first_bytes", "job_bytes")
    lines = [
        f"An example of {length} tokens in batches of {batch}; full fine-tuning of the same geometry = 1.",
        "",
        "| geometry | rung | trained | GFLOP | MiB | FLOPs: step | first | job | bytes: step | first | job |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        shares = " | ".join(f"{row[column]:.4f}" for column in columns)
        numbers = f"{row['trained']:,} | {row['gflop']:.3f} | {row['mib']:.1f}"
        lines.append(f"| {row['geometry']} | {row['rung']} | {numbers} | {shares} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
