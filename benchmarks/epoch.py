"""A real epoch: CLINC150 with all-MiniLM-L6-v2, full fine-tuning in PyTorch beside edge-far's FAR_10 in int8.

    python benchmarks/epoch.py --data DIR [--threads 2] [--batch 16] [--bundle DIR] [--out FILE]

Run with the workstation's environment, alone on the machine; DIR holds data_full.json. Each row is a fresh process:
benchmarks/torch_finetune.py (SDPA, fused AdamW, every parameter trained) and `edge-far train` in the device's
environment on a bundle exported for rpi4-4gb, with the same threads, batch size, dropout and evaluation. Both see
the same batches in the same order: shuffled from the seed, examples of similar length together, each batch padded to
its longest, rounded up to a multiple of 8; edge-far cuts them into micro-batches where its plan says so. Seconds are
those of the optimiser steps, peaks are read before the first evaluation, the export with its priming is not counted.
Prints a Markdown table with the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_far.bench.cases import far_name
from edge_far.bench.environments import describe_machine, python_or_exit
from edge_far.bundles.bundle import open_bundle
from edge_far.storage import write_json

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "val", "test")
PROFILE = "rpi4-4gb"
EDGE_FAR = ("-m", "edge_far.cli")

Row = dict[str, Any]


def main() -> None:
    """Run both, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with data_full.json")
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2 (default: the packaged one)")
    parser.add_argument("--bundle", type=Path, help=f"train this one (default: FAR_10 int8, exported for {PROFILE})")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-seq-len", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, help="stop early: for a trial only")
    parser.add_argument("--device-python", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    python = python_or_exit("edge-far", options.device_python)
    options.model = options.model or packaged_model()
    document: Row = {"machine": describe_machine(), "max_steps": options.max_steps}
    document |= {name: getattr(options, name) for name in ("threads", "batch", "max_seq_len", "learning_rate", "seed")}
    with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as name:
        folder = Path(name)
        files = write_splits(options.data, folder)
        bundle = options.bundle or export(files, folder, options)
        document["rows"] = [run_torch(files, options), run_edge_far(bundle, files, folder, python, options)]
    if options.out:
        write_json(options.out, document)
    print(as_markdown(document))


def packaged_model() -> Path:
    """Return the directory of the model that the workstation's environment brings along."""
    command = [sys.executable, str(ROOT / "scripts/packaged_model.py")]
    return Path(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()).resolve()


def write_splits(data: Path, folder: Path) -> dict[str, Path]:
    """Write the in-scope sentences of each split as JSONL."""
    splits = json.loads((data / "data_full.json").read_text(encoding="utf-8"))
    files = {name: folder / f"{name}.jsonl" for name in SPLITS}
    for name, file in files.items():
        lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) + "\n" for text, label in splits[name]]
        file.write_text("".join(lines), encoding="utf-8")
    return files


def recipe(options: argparse.Namespace) -> list[Any]:
    """Return the options of an epoch that all commands share."""
    words: list[Any] = ["--epochs", 1, "--batch-size", options.batch, "--max-seq-len", options.max_seq_len]
    return [*words, "--learning-rate", f"{options.learning_rate:g}", "--seed", options.seed]


def stop_early(options: argparse.Namespace) -> list[Any]:
    """Return the option of a trial."""
    return ["--max-steps", options.max_steps] if options.max_steps else []


def export(files: dict[str, Path], folder: Path, options: argparse.Namespace) -> Path:
    """Export the bundle; priming runs here."""
    bundle = folder / "bundle"
    words = [
        *EDGE_FAR,
        "export",
        "--method",
        "far",
        "--model",
        options.model,
        "--pooling",
        "cls",
        "--train",
        files["train"],
        "--profile",
        PROFILE,
    ]
    words += ["--retention", "0.1", "--frozen-precision", "int8", *recipe(options), "--no-ort", "--out", bundle]
    call([sys.executable, *words, "--json"], options.threads)
    return bundle


def run_torch(files: dict[str, Path], options: argparse.Namespace) -> Row:
    """Fine-tune everything in torch."""
    words = [ROOT / "benchmarks/torch_finetune.py", "--model", options.model, "--train", files["train"]]
    words += ["--eval", files["val"], "--test", files["test"], *recipe(options), *stop_early(options)]
    words += ["--threads", options.threads, "--attention", "sdpa", "--fused"]
    found = call([sys.executable, *words], options.threads)
    return {
        "name": "torch full (sdpa, fused AdamW)",
        "seconds": found["seconds"],
        "examples": found["examples"],
        "steps": found["steps"],
        "peak_rss_mib": found["training_peak_rss_mib"],
        "test": found["test"],
        "trained_parameters": found["trained_parameters"],
        "micro_batch": options.batch,
        "engine": found["engine"],
    }


def run_edge_far(bundle: Path, files: dict[str, Path], folder: Path, python: Path, options: argparse.Namespace) -> Row:
    """Train the bundle in the device's environment; seconds and peak are the log's."""
    run, threads = folder / "run", ["--threads", options.threads, "--json"]
    words = [*EDGE_FAR, "train", bundle, "--train", files["train"], "--eval", files["val"], "--out", run]
    trained = call([python, *words, *recipe(options), *stop_early(options), *threads], options.threads)
    words = [*EDGE_FAR, "eval", bundle, "--run", run, "--data", files["test"]]
    evaluated = call([python, *words, *threads], options.threads)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in log if event["event"] == "step"]
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    manifest = open_bundle(bundle).manifest
    return {
        "name": f"edge-far {far_name(manifest.selection.retention)} {manifest.portable.frozen_precision}",
        "seconds": round(sum(event["seconds"] for event in steps), 1),
        "examples": sum(event["examples"] for event in steps),
        "steps": len(steps),
        "peak_rss_mib": max(event["peak_rss_mib"] for event in steps),
        "test": evaluated["accuracy"],
        "trained_parameters": trained["trained_parameters"],
        "micro_batch": trained["plan"]["micro_batch"],
        "engine": f"onnxruntime {record['onnxruntime']}",
    }


def call(command: Sequence[Any], threads: int) -> Row:
    """Run a command in a fresh process, its messages going to this one's; return the JSON document it prints."""
    libraries = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    variables = {**os.environ, **libraries, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, command)], env=variables, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {' '.join(map(str, command))}")
    document: Row = json.loads(done.stdout)
    return document


def as_markdown(document: Row) -> str:
    """Return set-up, a row each, and the ratios."""
    machine = document["machine"]
    trial = f", a trial of {document['max_steps']} steps" if document["max_steps"] else ""
    lines = [
        f"CLINC150, one epoch{trial}, batch {document['batch']}, {document['threads']} threads, learning rate "
        f"{document['learning_rate']:g}, seed {document['seed']}; {machine['cpu']}, load average before the run "
        f"{machine['load_average']}, {machine['date']}, edge-far {machine['edge_far']}",
        "",
        "| | steps | seconds | examples/s | peak, MiB | test accuracy | trained parameters | micro-batch | runtime |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in document["rows"]:
        rate = row["examples"] / row["seconds"]
        cells = f"| {row['name']} | {row['steps']} | {row['seconds']:.1f} | {rate:.1f} | {row['peak_rss_mib']:.0f} | "
        cells += f"{row['test']:.2%} | {row['trained_parameters']:,} | {row['micro_batch']} | {row['engine']} |"
        lines.append(cells)
    full, far = document["rows"]
    time, peak = full["seconds"] / far["seconds"], full["peak_rss_mib"] / far["peak_rss_mib"]
    return "\n".join([*lines, "", f"torch full / edge-far: {time:.2f} in time, {peak:.2f} in peak memory"])


if __name__ == "__main__":
    main()
