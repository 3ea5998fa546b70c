"""Time in matrix products and in everything else of a training step: FAR_10 in edge-far, full fine-tuning in torch.

    python benchmarks/operator_time.py [--model distilbert] [--batch 16] [--length 128] [--threads 2] [--rounds 5]

Run with the workstation's environment. All rows are measured in turn, round by round, each in a fresh process: random
weights, no dropout, AdamW and clipping included, one step to warm up, then the median of five. The table has the
medians over the rounds, and for everything else the least and the largest of them too. PyTorch trains everything,
embeddings too; times are the self CPU times of torch.profiler, which for an operator of several threads is the time of
the calling one. edge-far keeps its embeddings frozen; times are those of ONNX Runtime's own profile, and the
optimiser's with clearing is measured beside it. Products are what is_product says: the fused attention kernels of
both count whole, softmax included (in favour of PyTorch's sdpa and of edge-far alike), as does the quantising inside
DynamicQuantizeMatMul and QLinearMatMul (in favour of edge-far). `sum` should be near `wall`, the time of the same steps
by the clock: what is missing ran between operators.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edge_far.bench.environments import python_or_exit
from edge_far.bench.work.task import CLIP_NORM, LEARNING_RATE, Task, batches
from edge_far.bundles.bundle import open_bundle

WARMUP, STEPS, RETENTION = 1, 5, 0.1
AIM = 0.47
ENGINES = ("torch", "edge-far")
TORCH_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "aten::matmul")
ATTENTION_KERNELS = ("aten::scaled_dot_product", "aten::_scaled_dot_product")
KINDS = (("torch", "sdpa"), ("torch", "eager"), ("edge-far", "fp32"), ("edge-far", "int8"))
OPTIMIZER = "optimiser and clearing"


@dataclass(frozen=True)
class Row:
    """One line of the table: what runs, and its times in seconds."""

    engine: str
    method: str
    precision: str
    products: float
    rest: float
    wall: float
    rest_range: tuple[float, float]  # the same as `rest` twice, for one round


def main() -> None:
    """Measure every row, print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="distilbert")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--operators", type=int, default=0, metavar="N", help="also list the N longest operators")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    pythons = {engine: python_or_exit(engine) for engine in ENGINES}
    measured: dict[tuple[str, str], list[Row]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as name:
        for engine, kind in KINDS:
            if engine == "edge-far":
                compile_one(options.model, Path(name) / kind, kind)
        for number in range(options.rounds):
            for engine, kind in KINDS:
                steps = measure(engine, kind, pythons[engine], Path(name), options)
                measured[engine, kind].append(summarise(engine, kind, steps))
                if options.operators:
                    print(f"round {number + 1}, {engine} {kind}: {longest(engine, steps, options.operators)}")
    print(as_markdown([over_rounds(rows) for rows in measured.values()]))


def measure(engine: str, kind: str, python: Path, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a row in a fresh process; return each step's seconds by operator and by the clock."""
    task = Task(
        engine=engine,
        model=options.model,
        bundle=str(folder / kind),
        retention=1.0 if engine == "torch" else RETENTION,
        embeddings="train" if engine == "torch" else "frozen",
        attention=kind if engine == "torch" else None,
        batch=options.batch,
        micro_batch=options.batch,
        length=options.length,
        threads=options.threads,
        steps=STEPS,
        warmup=WARMUP,
        dropout=False,
        seed=0,
        optimizer="adamw",
    )
    task.write(folder / "task.json")
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command = [str(python), __file__, "--child", str(folder / "task.json"), str(folder / "steps.json")]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:  # otherwise the profiler's chatter
        sys.exit(f"{engine} {kind} failed:\n{done.stderr}")
    steps: list[dict[str, Any]] = json.loads((folder / "steps.json").read_bytes())
    return steps[WARMUP:]


def compile_one(model: str, out: Path, precision: str) -> None:
    """Compile FAR_10 with frozen embeddings."""
    from edge_far.bench.work.bundles import compile_random

    compile_random(
        model, out, retention=RETENTION, precision=precision, embeddings="frozen", dropout=False, with_ort=False
    )


def is_product(engine: str, operator: str) -> bool:
    """Say whether an operator counts as a matrix product."""
    if engine == "torch":
        return operator in TORCH_PRODUCTS or operator.startswith(ATTENTION_KERNELS)
    return "MatMul" in operator or operator in ("Gemm", "Attention")


def summarise(engine: str, kind: str, steps: Sequence[Mapping[str, Any]]) -> Row:
    """Return the medians over steps of the products, of all else, and of the time by the clock."""
    products, rest = [], []
    for step in steps:
        taken = [(is_product(engine, operator), seconds) for operator, seconds in step["operators"].items()]
        products.append(sum(seconds for product, seconds in taken if product))
        rest.append(sum(seconds for product, seconds in taken if not product))
    wall = statistics.median(step["wall"] for step in steps)
    method, precision = (f"full ({kind})", "fp32") if engine == "torch" else ("far-10", kind)
    typical = statistics.median(rest)
    return Row(engine, method, precision, statistics.median(products), typical, wall, (typical, typical))


def over_rounds(rows: Sequence[Row]) -> Row:
    """Return the medians over the rounds of one kind of row."""
    rest = [row.rest for row in rows]
    return replace(
        rows[0],
        products=statistics.median(row.products for row in rows),
        rest=statistics.median(rest),
        wall=statistics.median(row.wall for row in rows),
        rest_range=(min(rest), max(rest)),
    )


def longest(engine: str, steps: Sequence[Mapping[str, Any]], count: int) -> str:
    """Return the longest operators with their mean milliseconds a step; products have a star."""
    total: Counter[str] = Counter()
    for step in steps:
        total.update(step["operators"])
    return ", ".join(
        f"{name}{'*' if is_product(engine, name) else ''} {seconds / len(steps) * 1e3:.1f}"
        for name, seconds in total.most_common(count)
    )


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table, and below it what each edge-far row saves of PyTorch's time outside products."""
    lines = [
        "| engine | method | precision | products, s | everything else, s | of rounds | its share | sum, s | wall, s |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        total = row.products + row.rest
        lines.append(
            f"| {row.engine} | {row.method} | {row.precision} | {row.products:.3f} | {row.rest:.3f} "
            f"| {row.rest_range[0]:.3f}-{row.rest_range[1]:.3f} | {row.rest / total:.0%} "
            f"| {total:.3f} | {row.wall:.3f} |"
        )
    lines.append("")
    for ours in (row for row in rows if row.engine == "edge-far"):
        for theirs in (row for row in rows if row.engine == "torch"):
            saved = 1 - ours.rest / theirs.rest
            verdict = "met" if saved >= AIM else "MISSED"
            lines.append(
                f"everything else, edge-far {ours.precision} against torch {theirs.method}: "
                f"{saved:.0%} less (aim {AIM:.0%}: {verdict})"
            )
    return "\n".join(lines)


def operators_by_run(events: Sequence[Mapping[str, Any]]) -> list[Counter[str]]:
    """Return seconds by operator for each run in an ONNX Runtime profile; its times are in microseconds."""
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    runs: list[Counter[str]] = [Counter() for _ in starts]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            runs[bisect.bisect_right(starts, event["ts"]) - 1][event["args"]["op_name"]] += event["dur"] / 1e6
    return runs


def run_bundle(task: Task) -> list[dict[str, Any]]:
    """Train a bundle with ONNX Runtime's profile on, as the trainer does."""
    from edge_far.device.board.memory import use_one_heap
    from edge_far.device.engine import session
    from edge_far.device.engine.backends import choose_backend
    from edge_far.device.optimizers.base import clipped_step
    from edge_far.device.optimizers.registry import make_optimizer

    use_one_heap()
    assert task.bundle is not None
    bundle = open_bundle(Path(task.bundle))
    load, profiled = session.load_session, []

    def load_profiled(path: Path, options: Any) -> Any:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(str(task.bundle)).with_name("profile"))
        profiled.append(load(path, options))
        return profiled[-1]

    session.load_session = load_profiled
    make_backend, _, learners = choose_backend("portable", bundle, task.threads, dropout=False)
    backend = make_backend(learners, None)
    optimizer = make_optimizer(task.optimizer, backend.parameters, weight_decay=0.01, no_decay=())
    walls, updates = [], []
    for batch in batches(task, bundle.manifest.model.vocabulary, len(bundle.manifest.labels)):
        began = time.perf_counter()
        backend.accumulate(batch, 1.0 / task.batch, None)
        computed = time.perf_counter()
        clipped_step(optimizer, backend.gradients, LEARNING_RATE, CLIP_NORM)
        ended = time.perf_counter()
        walls.append(ended - began)
        updates.append(ended - computed)
    runs = operators_by_run(json.loads(Path(profiled[0].end_profiling()).read_bytes()))
    runs = runs[-len(walls) :]  # the first is the backend's own, which shrinks the arena
    return [
        {"wall": wall, "operators": {**run, OPTIMIZER: update}}
        for wall, run, update in zip(walls, runs, updates, strict=True)
    ]


def run_torch(task: Task) -> list[dict[str, Any]]:
    """Fine-tune every parameter with torch.profiler on, each step a profile of its own."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.profiler import ProfilerActivity, profile

    from edge_far.bench.work.models import LABELS, make_config, make_model

    torch.set_num_threads(task.threads)
    config = make_config(task.model, dropout=False)
    model = make_model(config, attention=str(task.attention), seed=task.seed).train()
    trained = list(model.parameters())
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, fused=True)
    steps = []
    for batch in batches(task, int(config.vocab_size), LABELS):
        ids, mask, labels = (torch.from_numpy(a) for a in (batch.input_ids, batch.attention_mask, batch.labels))
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            began = time.perf_counter()
            cross_entropy(model(input_ids=ids, attention_mask=mask).logits, labels).backward()
            torch.nn.utils.clip_grad_norm_(trained, CLIP_NORM)
            optimizer.step()
            optimizer.zero_grad()
            wall = time.perf_counter() - began
        operators = {event.key: event.self_cpu_time_total / 1e6 for event in profiled.key_averages()}
        steps.append({"wall": wall, "operators": operators})
    return steps


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        read = Task.read(Path(sys.argv[2]))
        Path(sys.argv[3]).write_text(json.dumps(run_torch(read) if read.engine == "torch" else run_bundle(read)))
    else:
        main()
