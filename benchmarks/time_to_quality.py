"""How long until a model is good: PyTorch's full fine-tuning beside `--method auto` and rungs, everything included.

    python benchmarks/time_to_quality.py --data DIR [--methods auto head] [--minutes 3] [--seeds 0 1 2] [--out FILE]

Run with the workstation's environment, alone on the machine; DIR holds train.jsonl, valid.jsonl and test.jsonl. Each
row is of fresh processes: benchmarks/torch_finetune.py (SDPA, fused AdamW, every parameter, two epochs), and `edge-far
export --method auto` on the workstation, then `edge-far train` in the device's environment, with fill and evaluations.
Seconds are those of the whole process, from start to exit; peaks are VmHWM. `as good after` is the time from the start
to the end of the first evaluation (one an epoch) whose validation accuracy is at least that of torch's best epoch. The
export is the workstation's work, which a device never does, and has a column of its own. Prints a Markdown table with
the ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.epoch import EDGE_FAR, ROOT, call, packaged_model
from edge_far.bench.environments import describe_machine, python_or_exit
from edge_far.storage import write_json

Row = dict[str, Any]


def main() -> None:
    """Run both for each seed, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="directory with train, valid and test.jsonl")
    parser.add_argument("--model", type=Path, help="directory of all-MiniLM-L6-v2 (default: the packaged one)")
    parser.add_argument("--methods", nargs="+", default=["auto"], help="of export (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=3.0, help="what a choice may take")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=2, help="of full fine-tuning")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of full fine-tuning")
    parser.add_argument("--profile", default="rpi4-4gb")
    parser.add_argument("--without-torch", action="store_true", help="run edge-far alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device-python", type=Path)
    parser.add_argument("--out", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.device_python = python_or_exit("edge-far", options.device_python)
    options.model = options.model or packaged_model()
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory(prefix="edge-far-bench-") as folder:
            full = [] if options.without_torch else [run_torch(seed, options)]
            target = full[0]["validation"] if full else None
            made = [run_edge_far(method, target, seed, Path(folder), options) for method in options.methods]
        rows += [*full, *made]
        print(json.dumps([*full, *made]), file=sys.stderr, flush=True)
    document = {"machine": describe_machine(), "data": options.data.name, "threads": options.threads, "rows": rows}
    if options.out:
        write_json(options.out, document)
    print(as_markdown(document))


def run_torch(seed: int, options: argparse.Namespace) -> Row:
    """Fine-tune everything in torch."""
    words: list[Any] = [ROOT / "benchmarks/torch_finetune.py", "--model", options.model, *splits(options)]
    words += ["--epochs", options.epochs, "--learning-rate", options.learning_rate, "--seed", seed]
    started = time.monotonic()
    found = call(
        [sys.executable, *words, "--threads", options.threads, "--attention", "sdpa", "--fused"], options.threads
    )
    seconds = time.monotonic() - started
    return {
        "name": f"torch full, {options.epochs} epochs",
        "seed": seed,
        "seconds": seconds,
        "as_good_after": None,
        "validation": found["validation"],
        "peak_rss_mib": found["training_peak_rss_mib"],
        "accuracy": found["test"],
        "matthews": found["test_matthews"],
        "export_seconds": None,
        "choice_seconds": None,
    }


def run_edge_far(method: str, target: float | None, seed: int, folder: Path, options: argparse.Namespace) -> Row:
    """Export a method, train it as a device does, ask for the test data's accuracy; when was it as good as `target`?"""
    bundle, run = folder / f"bundle-{method}", folder / f"run-{method}"
    words: list[Any] = ["export", "--model", options.model, "--train", options.data / "train.jsonl", "--no-ort"]
    words += ["--method", method, "--profile", options.profile, "--seed", seed, "--out", bundle]
    words += ["--choose-minutes", options.minutes] if method == "auto" else ["--pooling", "mean"]
    exported = call([sys.executable, *EDGE_FAR, *words, "--json"], options.threads)
    words = ["train", bundle, "--train", options.data / "train.jsonl", "--eval", options.data / "valid.jsonl"]
    words += ["--cache", folder / f"cache-{method}"]  # each row fills its own
    started, at = time.monotonic(), time.time()
    trained = call([options.device_python, *EDGE_FAR, *words, "--out", run, *threads(options)], options.threads)
    seconds = time.monotonic() - started
    words = ["eval", bundle, "--run", run, "--data", options.data / "test.jsonl"]
    tested = call([options.device_python, *EDGE_FAR, *words, *threads(options)], options.threads)
    choice = exported.get("choice")
    chosen = f": {choice['chosen']['rung']}, {choice['chosen']['pooling']}" if choice else ", mean"
    return {
        "name": f"edge-far {method}{chosen}",
        "seed": seed,
        "seconds": seconds,
        "as_good_after": None if target is None else as_good_after(run / "log.jsonl", target, at),
        "validation": trained["eval"]["accuracy"],
        "peak_rss_mib": trained["peak_rss_mib"],
        "accuracy": tested["accuracy"],
        "matthews": tested["matthews"],
        "export_seconds": exported["seconds"],
        "choice_seconds": choice["seconds"] if choice else 0.0,
    }


def as_good_after(log: Path, target: float, started: float) -> float | None:
    """Return the seconds from `started` to the first evaluation with this accuracy; None where none has it."""
    for line in log.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "eval" and event["accuracy"] >= target:
            return float(event["time_s"] - started)
    return None


def splits(options: argparse.Namespace) -> list[Any]:
    """Return the options that name the data."""
    return [
        *("--train", options.data / "train.jsonl"),
        *("--eval", options.data / "valid.jsonl"),
        *("--test", options.data / "test.jsonl"),
    ]


def threads(options: argparse.Namespace) -> list[Any]:
    """Return the options of every command on the device."""
    return ["--threads", options.threads, "--json"]


def as_markdown(document: Row) -> str:
    """Return set-up, a row each, and the ratios of the means."""
    machine, rows = document["machine"], document["rows"]
    lines = [
        f"{document['data']}, {document['threads']} threads; {machine['cpu']}, load average before the run "
        f"{machine['load_average']}, {machine['date']}, edge-far {machine['edge_far']}",
        "",
        "| | seed | seconds | as good after, s | peak, MiB | test accuracy | MCC | export, s | of which the choice |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        keys = ("as_good_after", "export_seconds", "choice_seconds")
        good, *export = ("" if row[key] is None else f"{row[key]:.0f}" for key in keys)
        lines.append(
            f"| {row['name']} | {row['seed']} | {row['seconds']:.0f} | {good} | {row['peak_rss_mib']:.0f} | "
            f"{row['accuracy']:.2%} | {row['matthews']:.3f} | {' | '.join(export)} |"
        )
    full = [row for row in rows if row["export_seconds"] is None]
    for name in dict.fromkeys(row["name"] for row in rows if full and row not in full):
        own = [row for row in rows if row["name"] == name]
        time_ratio, peak_ratio = (_mean(full, key) / _mean(own, key) for key in ("seconds", "peak_rss_mib"))
        line = f"torch full / {name}: {time_ratio:.1f} in time, {peak_ratio:.1f} in peak memory"
        if all(row["as_good_after"] is not None for row in own):
            line += f", {_mean(full, 'seconds') / _mean(own, 'as_good_after'):.1f} until as good"
        lines += ["", line]
    return "\n".join(lines)


def _mean(rows: list[Row], key: str) -> float:
    return statistics.mean(row[key] for row in rows)


if __name__ == "__main__":
    main()
