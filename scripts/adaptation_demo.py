"""Periodic adaptation end to end on real data: HWU64 intents, all-MiniLM-L6-v2, five batches, five cycles.

    .venv/bin/python scripts/adaptation_demo.py --data HWU64 [--out build/adaptation] [--prepare | --cycles | --table]

HWU64 holds train/ and test/, each with seq.in and label, a line an example. The first half of each intent's
training examples trains the factory bundle; the second half arrives through the spool in five batches, shuffled, and
after each one `edge-far daemon --once` runs, in the device's environment. Of the
host's half 1,000 examples go along: half of them train, half measure forgetting. `test` is seen by nobody but the
table. Takes up again where it was interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bundle import describe_files

REPOSITORY = Path(__file__).resolve().parents[1]
HOST, DEVICE = (REPOSITORY / name / "bin" / "edge-far" for name in (".venv", ".venv-device"))
BATCHES = 5
REPLAY = 1000
PROFILE = """memory: {budget_mib: 300}
compute: {threads: 2}
training: {batch_size: 16, max_seq_len: 64}
adaptation:
  {min_new_examples: 32, epochs: 2, use_replay: true, tolerance_percent: 3, base_tolerance_percent: 3}
"""


def main() -> int:
    """Run the stages that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="HWU64")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "adaptation", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    for stage in ("prepare", "cycles", "table"):
        parser.add_argument(f"--{stage}", action="store_true", help=f"run the stage {stage} alone")
    options = parser.parse_args()
    every = not (options.prepare or options.cycles or options.table)
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    if every or options.prepare:
        prepare(options.data, out, options.seed)
    if every or options.cycles:
        run_cycles(out)
    if every or options.table:
        print(table(out))
    return 0


def prepare(data: Path, out: Path, seed: int) -> None:
    """Split the data, export a bundle, train it on the host's half, and put the result into the bundle."""
    if (out / "bundle").is_dir():
        return
    halves: dict[str, list[dict[str, str]]] = {"host": [], "device": []}
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for record in read(data / "train"):
        by_label[record["label"]].append(record)
    for records in by_label.values():
        middle = (len(records) + 1) // 2
        halves["host"] += records[:middle]
        halves["device"] += records[middle:]
    random.Random(seed).shuffle(halves["device"])
    write(out / "host.jsonl", halves["host"])
    write(out / "replay.jsonl", random.Random(seed).sample(halves["host"], REPLAY))
    write(out / "test.jsonl", read(data / "test"))
    size = -(-len(halves["device"]) // BATCHES)
    for number in range(BATCHES):
        write(out / f"batch-{number + 1}.jsonl", halves["device"][number * size : (number + 1) * size])
    (out / "profile.yaml").write_text(PROFILE)
    model = subprocess.run(
        [REPOSITORY / ".venv/bin/python", REPOSITORY / "scripts/packaged_model.py"],
        **{"check": True, "capture_output": True, "text": True, "cwd": REPOSITORY},
    ).stdout.strip()
    for name in ("exported", "factory-run", "bundle.partial"):
        shutil.rmtree(out / name, ignore_errors=True)
    edge_far(
        HOST,
        *("export", "--model", REPOSITORY / model, "--train", out / "host.jsonl", "--profile", out / "profile.yaml"),
        *("--no-ort", "--seed", str(seed), "--out", out / "exported"),
    )
    edge_far(
        DEVICE,
        *("train", out / "exported", "--train", out / "host.jsonl", "--out", out / "factory-run"),
        *("--profile", out / "profile.yaml"),
    )
    shutil.copytree(out / "exported", out / "bundle.partial")
    shutil.copyfile(out / "factory-run" / "learners.safetensors", out / "bundle.partial" / "learners.safetensors")
    manifest = json.loads((out / "bundle.partial" / "manifest.json").read_bytes())
    files = describe_files(out / "bundle.partial")
    manifest["files"] = {name: dataclasses.asdict(info) for name, info in files.items()}
    (out / "bundle.partial" / "manifest.json").write_text(json.dumps(manifest, indent=2))
    (out / "bundle.partial").rename(out / "bundle")


def run_cycles(out: Path) -> None:
    """Feed the batches one by one; each is followed by the timer's command."""
    state, results = out / "state", out / "results.jsonl"
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    if not done:
        shutil.rmtree(state, ignore_errors=True)
        daemon(out, state)  # makes the factory release, and defers
        done.append({"batch": 0, **measured(out, state)})
        append(results, done[-1])
    for number in range(len(done), BATCHES + 1):
        target = state / "spool" / f"batch-{number}.jsonl"
        if not list((state / "spool").glob("**/*.jsonl")):
            shutil.copyfile(out / f"batch-{number}.jsonl", target.with_suffix(".tmp"))
            target.with_suffix(".tmp").rename(target)
        began = time.monotonic()
        document = daemon(out, state)
        cycle = document["cycle"]
        entry = {
            **{"batch": number, "deferred": document["deferred"], "seconds": round(time.monotonic() - began, 1)},
            **{"outcome": cycle and cycle["outcome"], "details": cycle and cycle["details"]},
            **measured(out, state),
        }
        append(results, entry)


def measured(out: Path, state: Path) -> dict[str, Any]:
    """Return the accuracy of the current release on the test split, as `edge-far eval` measures it."""
    current = (state / "model" / "current").resolve()
    run = out / "measured-run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    shutil.copyfile(current / "learners.safetensors", run / "learners.safetensors")
    facts = json.loads((current / "manifest.json").read_bytes())["facts"]
    (run / "run.json").write_text(json.dumps({"bundle": facts["bundle"]}))
    digest = hashlib.sha256((run / "learners.safetensors").read_bytes()).hexdigest()
    (run / "result.json").write_text(json.dumps({"learners_sha256": digest}))
    with_profile = ("--profile", out / "profile.yaml")
    document = edge_far(DEVICE, "eval", out / "bundle", "--run", run, "--data", out / "test.jsonl", *with_profile)
    return {"release": current.name, "test_accuracy": document["accuracy"], "test_examples": document["examples"]}


def table(out: Path) -> str:
    """Return the results as a table in Markdown."""
    lines = [
        "| batch | cycle | device: before -> candidate | base: factory -> candidate | test | training, peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for line in (out / "results.jsonl").read_text().splitlines():
        entry = json.loads(line)
        details = entry.get("details") or {}
        decision = details.get("decision") or {}
        device, base, training = decision.get("device"), decision.get("base"), details.get("training")
        cells = [
            *(str(entry["batch"]), entry.get("outcome") or entry.get("deferred") or "factory"),
            _pair(device),
            _pair(base),
            f"{entry['test_accuracy']:.1%} of {entry['test_examples']}",
            f"{training['seconds']:.0f} s, {training['peak_rss_mib']:.0f} MiB" if training else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _pair(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    return f"{figures['reference_accuracy']:.1%} -> {figures['candidate_accuracy']:.1%} of {figures['examples']}"


def daemon(out: Path, state: Path) -> dict[str, Any]:
    """Run the timer's command."""
    return edge_far(
        DEVICE,
        *("daemon", "--once", "--state", state, "--profile", out / "profile.yaml", "--bundle", out / "bundle"),
        *("--replay", out / "replay.jsonl"),
        accepted=(0, 75),
    )


def edge_far(program: Path, *arguments: str | Path, accepted: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run a command with --json and return its document."""
    command = [str(program), *map(str, arguments), "--json"]
    print("$", " ".join(["edge-far", *map(str, arguments)]), file=sys.stderr, flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode not in accepted:
        raise SystemExit(f"adaptation_demo: ended with status {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def read(folder: Path) -> list[dict[str, str]]:
    """Return the examples of one split."""
    texts, labels = ((folder / name).read_text().splitlines() for name in ("seq.in", "label"))
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True) if text.strip()]


def write(path: Path, records: list[dict[str, str]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def append(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    sys.exit(main())
