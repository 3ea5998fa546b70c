"""SIGKILL the daemon at random moments and look whether anything was lost, doubled or left half done.

    .venv-device/bin/python scripts/kill_daemon.py --bundle build/test-bundles/tiny-fp32 --rounds 300

Each round hands examples over as an application does (durable once acknowledged), starts `edge-far daemon --once`
and kills it after a random time; its children die with it. Then, without repairing anything: every example that was
acknowledged is in the store or in a spool file, once; SQLite finds the store sound; `current` names a release whose
every hash is right and that ONNX Runtime loads; and at the end a daemon that nobody kills ends a cycle. SIGKILL
leaves the page cache alive: what a power cut does is not shown here.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_far.daemon import spool
from edge_far.daemon.identity import normalise
from edge_far.daemon.releases import Releases
from edge_far.daemon.store import Store
from tests.daemon.field import WORDS, Field, environment


def main() -> int:
    """Run the rounds; return 1 as soon as one finds something wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return run(Field(Path(folder), options.bundle.absolute()), options.rounds, random.Random(options.seed))


def run(field: Field, rounds: int, chance: random.Random) -> int:
    """Run the rounds on one device."""
    began = time.monotonic()
    duration = measure(field, chance)
    acknowledged: dict[str, str] = dict(stored(field))
    moments: collections.Counter[str] = collections.Counter()
    for number in range(1, rounds + 1):
        hand_over(field, acknowledged, chance, 12)
        # A cycle under way is taken up again, so that late moments need no long delay.
        delay = duration * chance.choice((chance.uniform(0.0, 1.0), chance.uniform(0.3, 0.7)))
        process = subprocess.Popen(
            field.command("daemon", "--once"),
            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment()},
        )
        try:
            process.wait(delay)
            moments[f"had ended with {process.returncode}"] += 1
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            moments[moment(field)] += 1
        problem = check(field, acknowledged)
        if problem:
            print(f"round {number}: {problem}", file=sys.stderr)
            return 1
        if number % 10 == 0:
            print(f"{number} of {rounds}: {dict(moments)}", file=sys.stderr, flush=True)
    hand_over(field, acknowledged, chance, 40)
    for _ in range(2):  # the cycle under way, and then one of its own
        document = field.once()
    problem = check(field, acknowledged)
    with Store(field.state / "store.sqlite3") as store:
        counts = store.counts()
    result = {
        **{
            "rounds": rounds,
            "killed_while": dict(moments),
            "acknowledged": len(acknowledged),
            "in_use": counts.examples,
            "set_aside": counts.set_aside,
        },
        **{"last_cycle": document["cycle"]["outcome"], "cycles": document["cycle"]["id"], "problem": problem},
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print(json.dumps(result, indent=2))
    return int(problem is not None)


def measure(field: Field, chance: random.Random) -> float:
    """Return how long a whole cycle takes here, in s."""
    field.feed(400)
    field.once()
    hand_over(field, {}, chance, 12, keep=True)
    began = time.monotonic()
    field.once()
    return time.monotonic() - began


def hand_over(
    field: Field, acknowledged: dict[str, str], chance: random.Random, count: int, *, keep: bool = False
) -> None:
    """Add examples one by one, some of them corrections or repetitions of earlier ones."""
    for _ in range(count):
        number = chance.randrange(5)
        label, own = f"label-{number}", WORDS[number::5]
        if acknowledged and chance.random() < 0.1:
            text = chance.choice(sorted(acknowledged))
        else:
            text = " ".join(
                chance.choice(own if chance.random() < 0.7 else WORDS) for _ in range(chance.randint(4, 16))
            )
        spool.add(text, label, spool=field.state / "spool")
        if not keep:
            acknowledged[normalise(text)] = label


def stored(field: Field) -> list[tuple[str, str]]:
    """Return the normalised text and label of every example in the store, those set aside included."""
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        rows = connection.execute("SELECT text, label FROM examples").fetchall()
    return [(normalise(text), label) for text, label in rows]


def check(field: Field, acknowledged: dict[str, str]) -> str | None:
    """Return what is wrong, or None."""
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
    if sound != "ok":
        return f"SQLite says: {sound}"
    rows = stored(field)
    labels = dict(rows)
    if len(labels) != len(rows):
        return "an example is in the store twice"
    for text, label in waiting(field):
        labels[text] = label
    if labels != acknowledged:
        lost = [text for text in acknowledged if text not in labels]
        wrong = [text for text in acknowledged if labels.get(text, acknowledged[text]) != acknowledged[text]]
        return f"{len(lost)} examples lost, {len(wrong)} with an old label, {len(labels) - len(acknowledged)} more"
    releases = Releases(field.state / "model")
    current = releases.current_id()
    if current is None:
        return "no release is current"
    release = releases.verify(current)
    import onnxruntime

    onnxruntime.InferenceSession(release.path / "model.onnx")
    return None


def waiting(field: Field) -> list[tuple[str, str]]:
    """Return the examples of spool files in the order in which they will be read, those under way first."""
    top = field.state / "spool"
    claimed = sorted((top / ".ingest").glob("*"))
    ready = sorted(top.glob("*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    found = []
    with Store(field.state / "store.sqlite3") as store:
        for path in [*claimed, *ready]:
            position = store.spool_position(path.name) if path in claimed else None
            if position is not None and position[2]:
                continue
            for line in path.read_bytes()[position[0] if position else 0 :].splitlines():
                record = json.loads(line)
                found.append((normalise(record["text"]), record["label"]))
    return found


def moment(field: Field) -> str:
    """Return what the daemon was at when it was killed."""
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        row = connection.execute("SELECT state FROM cycles ORDER BY id DESC LIMIT 1").fetchone()
    state = str(row[0]) if row else "finished"
    if any((field.state / "spool" / ".ingest").iterdir()):
        return "ingest"
    if state == "finished":
        return "start, collect or end"
    return state


if __name__ == "__main__":
    sys.exit(main())
