"""SIGKILL the service's command at random moments of nights in which two new labels take their places.

    .venv-device/bin/python scripts/kill_new_labels.py --bundle build/test-bundles/tiny-fp32 --kills 50 [--seed 0]

Three of the bundle's five labels are its own, two outputs are free places. Each night begins with a device that has one
release; examples of two labels that nobody knows have arrived. After each kill no example may be lost or doubled, no
place taken twice, and `current` must have labels that fit; a night that nobody disturbs any more must end with both
labels in the places they took. Prints a line a night and {"kills", "nights", "bad"}; 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.daemon.field import PROFILE, WORDS, Field, environment
from tests.places import LABELS, with_places

OLD = {0: "label-0", 1: "label-1", 2: "label-2"}
NEW = {3: "blinds", 4: "shades"}
MOMENTS_S = (0.5, 2.2)
ASKED = "min_new_examples: 10, epochs: 2, tolerance_percent: 20"


def main() -> int:
    """Run nights until there were so many kills."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, kills, nights = random.Random(options.seed), 0, 0
    bad: list[Any] = []
    while kills < options.kills:
        with tempfile.TemporaryDirectory() as folder:
            killed, wrong = one_night(Path(folder), options.bundle.absolute(), chance)
        kills, nights, bad = kills + killed, nights + 1, bad + wrong
        print(f"night {nights}: {kills} kills", file=sys.stderr, flush=True)
    print(json.dumps({"kills": kills, "nights": nights, "bad": bad}))
    return int(bool(bad))


def one_night(root: Path, bundle: Path, chance: random.Random) -> tuple[int, list[Any]]:
    """Return how often a night was killed, and what was wrong."""
    field = Field(root, with_places(bundle, root / "bundle").root)
    field.profile.write_text(PROFILE.replace("min_new_examples: 10", ASKED))
    field.drop(texts(300, OLD, 1))
    field.once()
    field.drop(texts(100, NEW, 2) + texts(60, OLD, 3))
    kills, wrong = 0, list[Any]()
    while kills < 10:
        command = field.command("daemon", "--once")
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True
        )
        time.sleep(chance.uniform(*MOMENTS_S))
        alive = process.poll() is None
        if alive:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        wrong += problems(field)
        if not alive:
            break
    subprocess.run(field.command("daemon", "--once"), capture_output=True, env=environment(), check=False)
    wrong += problems(field)
    if places(field).keys() != set(NEW.values()):
        wrong.append(["not both took a place", places(field)])
    return kills, wrong


def problems(field: Field) -> list[Any]:
    """Return what is wrong with a device at this moment."""
    found: list[Any] = []
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        count, keys = connection.execute("SELECT count(*), count(DISTINCT key) FROM examples").fetchone()
    taken = places(field)
    labels = json.loads(((field.state / "model" / "current").resolve() / "labels.json").read_text())
    if count != keys or count not in (300, 460):
        found.append(["examples", count, keys])
    if len(set(taken.values())) != len(taken):
        found.append(["a place taken twice", taken])
    if labels[:3] != LABELS[:3] or any(labels[LABELS.index(p)] not in (p, name) for name, p in taken.items()):
        found.append(["labels of the current release", labels, taken])
    return found


def places(field: Field) -> dict[str, str]:
    """Return the place of each label that took one."""
    with sqlite3.connect(field.state / "store.sqlite3") as connection:
        return dict(connection.execute("SELECT name, place FROM new_labels").fetchall())


def texts(count: int, labels: dict[int, str], seed: int) -> str:
    """Return texts, all different, whose words tell their label."""
    drawn, lines = random.Random(seed), []
    for number in range(count):
        kind = list(labels)[number % len(labels)]
        words = [drawn.choice(WORDS[kind::5] if drawn.random() < 0.8 else WORDS) for _ in range(12)]
        lines.append(json.dumps({"text": f"{' '.join(words)} {seed} {number}", "label": labels[kind]}))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
