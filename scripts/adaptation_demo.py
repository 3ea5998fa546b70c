"""Periodic adaptation end to end on real data: HWU64 intents, all-MiniLM-L6-v2, five batches, five cycles, three seeds.

    .venv/bin/python scripts/adaptation_demo.py --data HWU64 [--seeds 0] [--export '--method auto'] [--out DIR]
    .venv/bin/python scripts/adaptation_report.py build/adaptation        table, significance, picture

HWU64 holds train/, valid/ and test/, each with seq.in and label, a line an example. The first half of each
intent's training examples trains the factory bundle. The second half arrives through the spool in five batches,
shuffled by the seed, and after each one the command of deploy/edge-far.service runs, in the device's environment.
REPLAY examples of the first half go along to train on (EDGE_FAR_REPLAY); `valid`, which nothing trains on, is the base
set on which the gate measures forgetting (EDGE_FAR_BASE). `test` is seen by nobody but the report. For comparison, the
exported bundle is also trained in one go on all that the device may train on. A cycle's processor seconds are those of
the service's command and all that it starts.

With --choose, a share of each half of `train` plays `valid` and `test`: settings are chosen there, and the
files `valid` and `test` stay unread. Takes up again where it was interrupted or deferred.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import random
import resource
import shlex
import shutil
import string
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.bundles.bundle import describe_files
from edge_far.daemon.store.identity import example_key, is_held_out

REPOSITORY = Path(__file__).resolve().parents[1]
HOST, DEVICE = (REPOSITORY / name / "bin" for name in (".venv", ".venv-device"))
SPOOL_BATCHES = 5
REPLAY = 1000
CHOOSING_SHARE = 0.15
SETS = ("test", "base", "held_out")  # what the report measures on
PROFILE = """memory: {{budget_mib: 300}}
compute: {{threads: 1}}
training: {{batch_size: 16, max_seq_len: 32}}
adaptation: {{use_replay: true, {extra}}}
"""


def main() -> int:
    """Run every seed to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="HWU64")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "build" / "adaptation", metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--choose", action="store_true", help="choose settings, within train alone")
    parser.add_argument("--replay", type=int, default=REPLAY, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--adaptation",
        default="epochs: 2",
        metavar="'KEY: VALUE, ...'",
        help="settings of the profile (default: %(default)s)",
    )
    parser.add_argument(
        "--export",
        default="--method far --pooling cls",
        metavar="'OPTIONS'",
        help="of edge-far export (default: %(default)s)",
    )
    parser.add_argument("--without-at-once", action="store_true", help="leave out training at once")
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="take the bundles from this earlier --out")
    options = parser.parse_args()
    for seed in options.seeds:
        out = options.out / f"seed-{seed}"
        out.mkdir(parents=True, exist_ok=True)
        write_data(options, out, seed)
        if options.bundles is not None:
            link_bundles(options.bundles / f"seed-{seed}", out)
        make_bundle(out, seed, shlex.split(options.export))
        run_cycles(out)
        if not options.without_at_once:
            train_at_once(out)
    return 0


def write_data(options: argparse.Namespace, out: Path, seed: int) -> None:
    """Write every file that a seed needs; the same files each time."""
    by_label: dict[str, list[dict[str, str]]] = defaultdict(list)
    for record in read(options.data / "train"):
        by_label[record["label"]].append(record)
    host, device, chosen = [], [], []
    for records in by_label.values():
        middle = (len(records) + 1) // 2
        for half, target in ((records[:middle], host), (records[middle:], device)):
            for record in half:
                (chosen if options.choose and _share_of(record["text"]) < CHOOSING_SHARE else target).append(record)
    random.Random(seed).shuffle(device)
    held_out = [record for record in device if is_held_out(example_key(record["text"]), 0.2)]
    kept = {record["text"] for record in held_out}
    write(out / "host.jsonl", host)
    write(out / "replay.jsonl", random.Random(seed).sample(host, min(options.replay, len(host))))
    write(out / "base.jsonl", chosen[::2] if options.choose else read(options.data / "valid"))
    write(out / "test.jsonl", chosen[1::2] if options.choose else read(options.data / "test"))
    write(out / "held_out.jsonl", held_out)
    write(out / "at-once.jsonl", host + [record for record in device if record["text"] not in kept])
    size = -(-len(device) // SPOOL_BATCHES)
    for number in range(SPOOL_BATCHES):
        write(out / f"batch-{number + 1}.jsonl", device[number * size : (number + 1) * size])
    (out / "profile.yaml").write_text(PROFILE.format(extra=options.adaptation))


def link_bundles(source: Path, out: Path) -> None:
    """Use what another run with the same data and seed has made."""
    for name in ("exported", "bundle", "at-once-run"):
        if not (out / name).exists() and (source / name).exists():
            (out / name).symlink_to((source / name).resolve())


def make_bundle(out: Path, seed: int, words: list[str]) -> None:
    """Export a bundle, train it on the host's half, and put the result into the bundle."""
    if (out / "bundle").is_dir():
        return
    model = subprocess.run(
        [HOST / "python", REPOSITORY / "scripts/packaged_model.py"],
        check=True,
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    ).stdout.strip()
    for name in ("exported", "factory-run", "bundle.partial"):
        shutil.rmtree(out / name, ignore_errors=True)
    edge_far(
        HOST,
        "export",
        *words,
        "--model",
        REPOSITORY / model,
        "--train",
        out / "host.jsonl",
        "--profile",
        out / "profile.yaml",
        "--no-ort",
        "--seed",
        str(seed),
        "--out",
        out / "exported",
    )
    train(out / "exported", out / "host.jsonl", out / "factory-run", out)
    shutil.copytree(out / "exported", out / "bundle.partial")
    shutil.copyfile(out / "factory-run" / "learners.safetensors", out / "bundle.partial" / "learners.safetensors")
    manifest = json.loads((out / "bundle.partial" / "manifest.json").read_bytes())
    files = describe_files(out / "bundle.partial")
    manifest["files"] = {name: dataclasses.asdict(info) for name, info in files.items()}
    (out / "bundle.partial" / "manifest.json").write_text(json.dumps(manifest, indent=2))
    (out / "bundle.partial").rename(out / "bundle")


def run_cycles(out: Path) -> None:
    """Feed the batches one by one; each is followed by the service's command."""
    results, spool = out / "results.jsonl", out / "spool"
    done = results.read_text().splitlines() if results.is_file() else []
    if not done:
        for folder in (spool, out / "state"):
            shutil.rmtree(folder, ignore_errors=True)
        spool.mkdir()
        service(out)  # makes the factory release, and defers
        append(results, {"batch": 0, **measured(out, (out / "state" / "model" / "current").resolve())})
    for number in range(max(len(done), 1), SPOOL_BATCHES + 1):
        target = spool / f"batch-{number}.jsonl"  # known examples, where this batch had been fed before
        shutil.copyfile(out / f"batch-{number}.jsonl", target.with_suffix(".tmp"))
        target.with_suffix(".tmp").rename(target)
        before = processor_seconds()
        if service(out) == 75:
            raise SystemExit(f"adaptation_demo: deferred; 'edge-far status --state {out}/state' says why; run it again")
        cycle = edge_far(DEVICE, "status", "--state", out / "state")["last_cycle"]
        entry = {
            "processor_seconds": processor_seconds() - before,
            **{name: cycle[name] for name in ("outcome", "reason", "examples", "training", "decision", "deaths")},
            **measured(out, (out / "state" / "model" / "current").resolve()),
        }
        append(results, {"batch": number, **entry})


def service(out: Path) -> int:
    """Run the command of the installed unit; return its exit status, 0 or 75."""
    unit = (REPOSITORY / "deploy" / "edge-far.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    places = {"/opt/edge-far/venv/bin/edge-far": DEVICE / "edge-far", "/var/spool/edge-far": out / "spool"}
    own = {
        "STATE_DIRECTORY": str(out / "state"),
        "EDGE_FAR_PROFILE": str(out / "profile.yaml"),
        "EDGE_FAR_BUNDLE": str(out / "bundle"),
        "EDGE_FAR_REPLAY": str(out / "replay.jsonl"),
        "EDGE_FAR_BASE": str(out / "base.jsonl"),
    }
    words = shlex.split(line.removeprefix("ExecStart="))
    command = [str(places.get(word, string.Template(word).substitute(own))) for word in words]
    print("$", shlex.join(command), file=sys.stderr, flush=True)
    status = subprocess.run(command, env={**environment(), **own}, check=False).returncode
    if status not in (0, 75):
        raise SystemExit(f"adaptation_demo: the service's command ended with status {status}")
    return status


def processor_seconds() -> float:
    """Return what all ended children of this process have taken, user and system."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def train_at_once(out: Path) -> None:
    """Train the exported bundle on both halves, but for what the device holds out; and measure that."""
    if (out / "at-once.json").is_file():
        return
    model, run = out / "at-once-model", out / "at-once-run"
    if not (run / "result.json").is_file():
        shutil.rmtree(run, ignore_errors=True)
        train(out / "exported", out / "at-once.jsonl", run, out)
    shutil.rmtree(model, ignore_errors=True)
    edge_far(DEVICE, "merge", out / "exported", "--run", run, "--out", model)
    (out / "at-once.json").write_text(json.dumps(measured(out, model)))
    shutil.rmtree(model)


def measured(out: Path, model: Path) -> dict[str, Any]:
    """Return the name of a released model and which examples of each set it answers rightly."""
    files = [out / f"{name}.jsonl" for name in SETS]
    command = [DEVICE / "python", REPOSITORY / "scripts" / "ask_release.py", model, *files]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), check=True)
    answers = json.loads(done.stdout)
    return {"release": model.name, "right": {name: answers[str(out / f"{name}.jsonl")] for name in SETS}}


def train(bundle: Path, data: Path, run: Path, out: Path) -> None:
    """Train a bundle with its own settings."""
    edge_far(DEVICE, "train", bundle, "--train", data, "--out", run, "--profile", out / "profile.yaml")


def edge_far(binaries: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run a command with --json and return its document."""
    print("$", shlex.join(["edge-far", *map(str, arguments)]), file=sys.stderr, flush=True)
    command = [str(binaries / "edge-far"), *map(str, arguments), "--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment(), check=False)
    if done.returncode:
        raise SystemExit(f"adaptation_demo: ended with status {done.returncode}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def environment() -> dict[str, str]:
    """Return the environment of every command: no network, one thread."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


def read(folder: Path) -> list[dict[str, str]]:
    """Return the examples of one split."""
    texts, labels = ((folder / name).read_text().splitlines() for name in ("seq.in", "label"))
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True) if text.strip()]


def write(path: Path, records: list[dict[str, str]]) -> None:
    """Write JSON lines, unless they are there already: a new time stamp would make the daemon read them again."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def append(path: Path, record: dict[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _share_of(text: str) -> float:
    """Return a number from 0 to 1 that is the text's own, for ever."""
    return int(hashlib.sha256(f"dev{text}".encode()).hexdigest()[:8], 16) / 2**32


if __name__ == "__main__":
    sys.exit(main())
