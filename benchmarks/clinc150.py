"""CLINC150's 150 in-scope intents: FAR_10, random_10 and frozen FFNs with edge-far beside full fine-tuning in torch.

    python benchmarks/clinc150.py --data DIR --model DIR --out DIR [--epochs 2] [--seeds 0 1 2] [--jobs 2]

DIR of the data holds data_full.json. Every method tries every learning rate with the first seed; the rate with the best
validation accuracy runs with the other seeds. Each finished run is one line of OUT/results.jsonl and is not run
again, so the same command continues after an interruption. The table comes last, and alone with --jobs 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "val", "test")
EXPORT_OPTIONS = {
    "far_10": ["--selection", "far", "--retention", "0.1"],
    "far_10_exact": ["--selection", "far", "--retention", "0.1", "--frozen-precision", "fp32"],
    "far_10_reset": ["--selection", "far", "--retention", "0.1", "--start", "reset"],
    "random_10": ["--selection", "random", "--retention", "0.1"],
    "frozen": ["--retention", "0"],
}
METHODS = ("full", *EXPORT_OPTIONS)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Job:
    """One training run."""

    method: str
    learning_rate: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-{self.learning_rate:g}-{self.seed}"


class Results:
    """OUT/results.jsonl, a line a finished run; shared by the threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rows: dict[Job, dict[str, Any]] = {}
        for row in map(json.loads, lines):
            self.rows[Job(row["method"], row["learning_rate"], row["seed"])] = row

    def add(self, job: Job, row: dict[str, Any]) -> None:
        """Write the row through to the disk."""
        row = {**dataclasses.asdict(job), **row}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[job] = row

    def chosen_rate(self, method: str, rates: Sequence[float], seed: int) -> float | None:
        """Return the rate with the best validation accuracy, None while one is missing; the lower wins a tie."""
        jobs = [Job(method, rate, seed) for rate in sorted(rates)]
        if not all(job in self.rows for job in jobs):
            return None
        return max(jobs, key=lambda job: self.rows[job]["validation"]).learning_rate


class Queue:
    """Hands out jobs: the first seed at every rate, then the other seeds at the chosen rate, method by method."""

    def __init__(self, results: Results, options: argparse.Namespace) -> None:
        self.results, self.options = results, options
        self.taken: set[Job] = set()
        self.failed: list[Job] = []
        self.changed = threading.Condition()

    def take(self, methods: Sequence[str]) -> Job | None:
        """Return the next job, `methods` being the order of preference; None when nothing is left to do."""
        with self.changed:
            while True:
                waits = False
                for method in methods:
                    job, waits_here = self._next(method)
                    if job is not None:
                        self.taken.add(job)
                        return job
                    waits |= waits_here
                if not waits:
                    return None
                self.changed.wait()

    def done(self, job: Job, failed: bool) -> None:
        """Note that a job ended."""
        with self.changed:
            if failed:
                self.failed.append(job)
            self.changed.notify_all()

    def _next(self, method: str) -> tuple[Job | None, bool]:
        """Return a job of this method, or whether one may come once the running ones end."""
        options = self.options
        first, *others = options.seeds
        sweep = [Job(method, rate, first) for rate in options.learning_rates]
        rate = self.results.chosen_rate(method, options.learning_rates, first)
        jobs = sweep + [Job(method, rate, seed) for seed in others if rate is not None]
        for job in jobs:
            if job not in self.taken and job not in self.results.rows:
                return job, False
        stopped = any(job in self.failed for job in sweep)
        return None, rate is None and not stopped and bool(others)


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with data_full.json")
    parser.add_argument("--model", type=Path, required=True, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-seq-len", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[3e-4, 1e-4, 1e-3])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["full", "far_10", "random_10", "frozen"])
    parser.add_argument("--profile", default="rpi4-4gb")
    parser.add_argument("--jobs", type=int, default=2, help="single-threaded runs at a time; 0 prints the table only")
    parser.add_argument("--host-python", type=Path, default=ROOT / ".venv/bin/python", help="has torch")
    parser.add_argument("--device-python", type=Path, default=ROOT / ".venv-device/bin/python", help="has onnxruntime")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    write_splits(options)
    results = Results(options.out / "results.jsonl")
    queue = Queue(results, options)
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        # Every second worker begins with the edge-far methods, so that torch's long runs do not pile up at the end.
        orders = [
            options.methods if n % 2 == 0 else options.methods[1:] + options.methods[:1] for n in range(options.jobs)
        ]
        for future in [pool.submit(work, queue, order) for order in orders]:
            future.result()
    print(table(results, options))
    for job in queue.failed:
        print(f"failed: {job.name}, see {options.out / 'logs' / job.name}.log", file=sys.stderr)
    return 1 if queue.failed else 0


def write_splits(options: argparse.Namespace) -> None:
    """Write the in-scope sentences of each split as JSONL."""
    splits = json.loads((options.data / "data_full.json").read_text(encoding="utf-8"))
    for name in SPLITS:
        path = split_file(options, name)
        path.parent.mkdir(exist_ok=True)
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in splits[name]]
        path.write_text("".join(lines), encoding="utf-8")


def split_file(options: argparse.Namespace, name: str) -> Path:
    """Return the path of a split."""
    path: Path = options.out / "data" / f"{name}.jsonl"
    return path


def work(queue: Queue, methods: Sequence[str]) -> None:
    """Run jobs until none is left; a failed one does not stop the others."""
    while (job := queue.take(methods)) is not None:
        print(f"{time.strftime('%H:%M:%S')} {job.name}", flush=True)
        try:
            row = run_full(job, queue.options) if job.method == "full" else run_edge_far(job, queue.options)
            queue.results.add(job, row)
            print(
                f"{time.strftime('%H:%M:%S')} {job.name}: {row['validation']:.2%}, test {row['test']:.2%}", flush=True
            )
            queue.done(job, failed=False)
        except (subprocess.CalledProcessError, OSError, ValueError, KeyError) as error:
            print(f"{time.strftime('%H:%M:%S')} {job.name} failed: {error}", file=sys.stderr, flush=True)
            queue.done(job, failed=True)


def run_full(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Fine-tune everything in torch."""
    command = [
        *(options.host_python, ROOT / "benchmarks/torch_finetune.py", "--model", options.model),
        *("--train", split_file(options, "train"), "--eval", split_file(options, "val")),
        *("--test", split_file(options, "test"), "--learning-rate", f"{job.learning_rate:g}", "--seed", job.seed),
        *("--epochs", options.epochs, "--batch-size", options.batch_size, "--max-seq-len", options.max_seq_len),
    ]
    return call(command, job, options)


def run_edge_far(job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Export, train and measure with edge-far; the bundle is deleted afterwards, the run's log is kept."""
    bundle, run = options.out / "bundles" / job.name, options.out / "runs" / job.name
    train, val, test = (split_file(options, name) for name in SPLITS)
    bundle.parent.mkdir(exist_ok=True)
    run.parent.mkdir(exist_ok=True)
    edge_far = ("-m", "edge_far.cli")
    if not (bundle / "manifest.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        export = [
            *(options.host_python, *edge_far, "export", "--model", options.model, "--train", train),
            *("--method", "far", "--pooling", "cls"),
            *("--profile", options.profile, *EXPORT_OPTIONS[job.method], "--learning-rate", f"{job.learning_rate:g}"),
            *("--epochs", options.epochs, "--batch-size", options.batch_size, "--max-seq-len", options.max_seq_len),
            *("--seed", job.seed, "--no-ort", "--out", bundle, "--json"),
        ]
        exported = call(export, job, options)
        (bundle.parent / f"{job.name}.json").write_text(json.dumps(exported), encoding="utf-8")
    resume = ["--resume"] if (run / "run.json").is_file() else []
    trained = call(
        [
            *(options.device_python, *edge_far, "train", bundle, "--train", train, "--eval", val, "--out", run),
            *("--threads", 1, "--json", *resume),
        ],
        job,
        options,
    )
    measured = call(
        [
            *(options.device_python, *edge_far, "eval", bundle, "--run", run, "--data", test),
            *("--threads", 1, "--json"),
        ],
        job,
        options,
    )
    exported = json.loads((bundle.parent / f"{job.name}.json").read_text(encoding="utf-8"))
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    row = {
        "validation": trained["eval"]["accuracy"],
        "validation_by_epoch": [event["accuracy"] for event in log if event["event"] == "eval"],
        "best_step": trained["eval"]["step"],
        "steps": trained["steps"],
        "priming_steps": exported["priming_steps"],
        "split_half_overlap": exported["split_half_overlap"],
        "test": measured["accuracy"],
        "final_loss": trained["final_loss"],
        "trained_parameters": trained["trained_parameters"],
        "seconds": round(sum(event["seconds"] for event in log if event["event"] == "step"), 1),
        "export_seconds": exported["seconds"],
        "peak_rss_mib": trained["peak_rss_mib"],
        "budget_mib": trained["budget_mib"],
        "micro_batch": trained["plan"]["micro_batch"],
        "step_downs": trained["step_downs"],
        "engine": f"onnxruntime {record['onnxruntime']}",
    }
    shutil.rmtree(bundle)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return row


def call(command: Sequence[Any], job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """Run a command politely; return the JSON document it prints, its messages going to OUT/logs/."""
    log = options.out / "logs" / f"{job.name}.log"
    log.parent.mkdir(exist_ok=True)
    words = ["nice", "-n", "5", *map(str, command)]
    with log.open("a", encoding="utf-8") as messages:
        messages.write("$ " + " ".join(words) + "\n")
        messages.flush()
        done = subprocess.run(
            words, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stderr=messages, text=True, check=True
        )
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def table(results: Results, options: argparse.Namespace) -> str:
    """Return the Markdown table of what is there."""
    rates = sorted(options.learning_rates)
    head = ["method", *(f"val. {rate:g}" for rate in rates), "rate", *(f"test, seed {seed}" for seed in options.seeds)]
    head += ["mean test", "trained parameters", "peak RSS MiB", "training s"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for method in options.methods:
        sweep = [results.rows.get(Job(method, rate, options.seeds[0])) for rate in rates]
        tried = [row for row in sweep if row is not None]
        if not tried:
            continue
        rate = max(tried, key=lambda row: row["validation"])["learning_rate"]
        runs = [results.rows.get(Job(method, rate, seed)) for seed in options.seeds]
        there = [row for row in runs if row is not None]
        cells = [method, *(percent(row, "validation") for row in sweep), f"{rate:g}"]
        cells += [percent(row, "test") for row in runs]
        cells += [f"{statistics.mean(row['test'] for row in there):.2%} ({len(there)})"]
        cells += [f"{there[0]['trained_parameters']:,}", f"{max(row['peak_rss_mib'] for row in there):.0f}"]
        cells += [f"{statistics.mean(row['seconds'] for row in there):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(row: dict[str, Any] | None, key: str) -> str:
    """Return a cell."""
    return "not run" if row is None else f"{row[key]:.2%}"


if __name__ == "__main__":
    sys.exit(main())
