"""A device's life in short, to be recorded: examples, releases, corrections, a rollback, a store that is damaged.

    python -m tests.daemon.disk.disk_workload ROOT BUNDLE MARKS

The device lives in ROOT/state. What is handed over, what is acknowledged and which release is current is told in
MARKS, and where the store is damaged, one JSON document a line.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from edge_far.daemon.intake import spool
from edge_far.storage import write_atomically
from tests.daemon.field import PROFILE, WORDS, Field


def main() -> None:
    """Run the workload."""
    root, bundle, marks = map(Path, sys.argv[1:])
    field = Field(root, bundle)
    descriptor = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def mark(**document: Any) -> None:
        os.write(descriptor, json.dumps(document).encode() + b"\n")

    chance = random.Random(0)
    known: list[str] = []

    def add(count: int, corrections: int = 0) -> None:
        """Hand examples over one by one, as an application does."""
        for number in range(count + corrections):
            text, label = made(chance) if number < count else (chance.choice(known), f"label-{chance.randrange(5)}")
            known.append(text)
            mark(hand=[[text, label]])
            spool.add(text, label, spool=field.state / "spool")
            mark(acknowledge=True)

    def add_file(name: str, count: int) -> None:
        """Hand a whole file over."""
        examples = [made(chance) for _ in range(count)]
        mark(hand=examples)
        lines = [json.dumps({"text": text, "label": label}) for text, label in examples]
        write_atomically(field.state / "spool" / name, ("\n".join(lines) + "\n").encode())
        mark(acknowledge=True)

    def run(status: int = 0) -> None:
        field.once(status=status)
        mark(current=field.current())

    run(status=75)
    add_file("first.jsonl", 400)
    add(6)
    run()
    add(12, corrections=6)
    run()
    mark(current=field.run("rollback")["current"])
    add_file("second.jsonl", 60)
    run()
    add(8, corrections=4)
    field.profile.write_text(PROFILE.replace("min_new_examples: 10", "min_new_examples: 10000"))
    run(status=75)  # in the store, but not in its copy
    field.profile.write_text(PROFILE)
    mark(damage=True)
    with (field.state / "store.sqlite3").open("r+b") as file:
        file.truncate(20000)
        os.fsync(file.fileno())
    run()


def made(chance: random.Random) -> tuple[str, str]:
    """Return an example that the tiny model can learn."""
    label = chance.randrange(5)
    words = (chance.choice(WORDS[label::5] if chance.random() < 0.7 else WORDS) for _ in range(chance.randint(4, 16)))
    return " ".join(words), f"label-{label}"


if __name__ == "__main__":
    main()
