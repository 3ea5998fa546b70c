"""What the field does to a device: each fault does its harm, runs the daemon under it, and says what is amiss.

Used by scripts/fault_loops.py. A fault returns what the daemon should have done and did not, or None.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge_far.daemon.intake import spool
from tests.daemon.disk.disk_workload import made
from tests.daemon.field import Field, environment, has_stepped, trainer_of, wait_for
from tests.daemon.invariants import Ledger
from tests.daemon.training.control_group import LIMIT_MIB, hog, inside, memory_group

__all__ = ["FAULTS", "Device", "Fault"]

MANY_LINES = 1_000_000
LONG_LINE = 100_000_000


@dataclass
class Device:
    """A device, what it was given, and the highest peak memory of the daemon's own process so far (MiB)."""

    field: Field
    ledger: Ledger
    chance: random.Random
    peak_mib: float = 0.0
    quarantined: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)

    def hand_over(self, count: int, *, prefix: list[str] | None = None) -> None:
        """Add examples one by one, some of them corrections; `prefix` is a command that adds in another process."""
        for _ in range(count):
            text, label = made(self.chance)
            if self.ledger.acknowledged and self.chance.random() < 0.2:
                text = self.chance.choice(sorted(self.ledger.acknowledged))
            self.ledger.hand([(text, label)])
            if prefix is None:
                spool.add(text, label, spool=self.field.state / "spool")
            else:
                add = [sys.executable, "-m", "edge_far.cli", "add", "--text", text, "--label", label]
                command = [*prefix, *add, "--spool", str(self.field.state / "spool")]
                subprocess.run(command, check=True, capture_output=True, env=environment())
            self.ledger.acknowledge()

    def hand_over_file(self, examples: list[tuple[str, str]], lines: list[bytes]) -> None:
        """Drop a file of these lines, which hold these examples."""
        self.ledger.hand(examples)
        self.field.drop(b"".join(line + b"\n" for line in lines))
        self.ledger.acknowledge()

    def run(self, *prefix: str, allowed: tuple[int, ...] = (0, 75), during: Callable[[], None] | None = None) -> str:
        """Run the timer's job, measure its own memory, and return what it says; `during` is called once it trains."""
        process = subprocess.Popen(
            [*prefix, *self.field.command("daemon", "--once")],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()},
        )
        steps_before = self.field.run_log.stat().st_size if self.field.run_log.exists() else 0
        while process.poll() is None:
            if not prefix:  # else it may be the prefix's memory
                self.peak_mib = max(self.peak_mib, _peak_mib(process.pid))
            if during is not None and has_stepped(self.field) and self.field.run_log.stat().st_size > steps_before:
                during()
                during = None
            time.sleep(0.01)
        output, errors = process.communicate()
        assert process.returncode in allowed, f"it ended with {process.returncode}: {errors[-400:]}"
        assert "Traceback" not in errors, errors[-1000:]
        return output + errors


Fault = Callable[[Device], str | None]


def _peak_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return 0.0 if "VmHWM:" not in text else int(text.partition("VmHWM:")[2].split()[0]) / 1024


def _deferred(device: Device) -> None:
    """Read the spool without a cycle, which would copy the store."""
    profile = device.field.profile.read_text()
    device.field.profile.write_text(profile.replace("min_new_examples: 1,", "min_new_examples: 100000,"))
    device.run(allowed=(75,))
    device.field.profile.write_text(profile)


def truncated_store(device: Device) -> str | None:
    """The store's file ends early, after examples have been read that no copy of it holds."""
    _deferred(device)
    store = device.field.state / "store.sqlite3"
    os.truncate(store, device.chance.randrange(store.stat().st_size))
    said = device.run()
    return None if "recovered into a new store" in said else "it does not say that the store was damaged"


def truncated_store_while_training(device: Device) -> str | None:
    """The store's file ends early while the trainer is at work."""
    store = device.field.state / "store.sqlite3"
    device.run(allowed=(0, 74, 75), during=lambda: os.truncate(store, device.chance.randrange(store.stat().st_size)))
    device.run(allowed=(0, 74, 75))
    return None


def locked_store(device: Device) -> str | None:
    """Another process holds the store's write lock, for a moment or for longer than the daemon waits."""
    with closing(sqlite3.connect(device.field.state / "store.sqlite3", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        if device.chance.random() < 0.8:
            process = device.field.start()
            time.sleep(device.chance.uniform(0.5, 3.0))
            connection.execute("ROLLBACK")
            _, errors = process.communicate()
            return None if process.returncode in (0, 75) else f"it did not wait: {errors}"
        said = device.run(allowed=(74,))
    return None if "locked by another process" in said else "it does not say that the store is locked"


def half_written_file(device: Device) -> str | None:
    """An application dies while it writes: before its rename, or it renamed too soon."""
    examples = [made(device.chance) for _ in range(5)]
    lines = [json.dumps({"text": text, "label": label}).encode() for text, label in examples]
    cut = device.chance.randrange(1, len(lines[-1]))
    device.quarantined += 1
    (device.field.state / "spool" / f".{device.chance.random()}.tmp").write_bytes(lines[0][:cut])
    device.hand_over_file(examples[:-1], lines[:-1])
    device.field.drop(lines[-1][:cut])
    device.run()
    return None


def long_line(device: Device) -> str | None:
    """A line of 100 MB between two good ones."""
    examples = [made(device.chance) for _ in range(2)]
    first, last = (json.dumps({"text": text, "label": label}).encode() for text, label in examples)
    device.quarantined += 1
    device.hand_over_file(examples, [first, b'{"text": "' + b"x" * LONG_LINE, last])
    device.run()
    return None


def invalid_text(device: Device) -> str | None:
    """Lines that are not UTF-8, not JSON, or hold NUL, between good ones."""
    examples = [made(device.chance) for _ in range(5)]
    good = [json.dumps({"text": text, "label": label}).encode() for text, label in examples]
    bad = [
        b"\xff\xfe" + device.chance.randbytes(30).replace(b"\n", b""),
        b'{"text": "caf\xe9", "label": "label-0"}',
        b"\0",
    ]
    device.quarantined += len(bad)
    lines = good + bad
    device.chance.shuffle(lines)
    device.hand_over_file(examples, lines)
    device.run()
    return None


def many_lines(device: Device) -> str | None:
    """A file of a million lines, of 2,000 different examples."""
    examples = list(dict(made(device.chance) for _ in range(2000)).items())
    lines = [json.dumps({"text": text, "label": label}).encode() for text, label in examples]
    device.hand_over_file(examples, [lines[number % len(lines)] for number in range(MANY_LINES)])
    device.run()
    return None


def clock_set_back(device: Device) -> str | None:
    """The clock jumps a year back, and the next time it is right again; the application's clock too."""
    prefix = ["faketime", "-f", "-365d"]
    device.hand_over(4, prefix=prefix)
    device.run(*prefix)
    device.hand_over(4)
    return None


def two_daemons(device: Device) -> str | None:
    """Three daemons are started at once."""
    processes = [device.field.start() for _ in range(3)]
    ends = [(process, process.communicate()[1]) for process in processes]
    statuses = sorted(process.returncode for process, _ in ends)
    if any("Traceback" in errors for _, errors in ends) or not set(statuses) <= {0, 75}:
        return f"they ended with {statuses}"
    return None


def out_of_memory(device: Device) -> str | None:
    """The kernel kills the trainer in a control group."""
    field = device.field
    profile = field.profile.read_text()
    field.profile.write_text(profile.replace("budget_mib: 400", f"budget_mib: {LIMIT_MIB}"))
    device.hand_over(20)
    with memory_group() as group:
        if group is None:
            raise RuntimeError("no memory control group can be made here")
        log = field.run_log.stat().st_size if field.run_log.exists() else 0
        daemon = inside(group, field.command("daemon", "--once"))
        wait_for(lambda: daemon.poll() is not None or (has_stepped(field) and field.run_log.stat().st_size > log))
        trainer = trainer_of(daemon)
        taker = hog(group, 75)
        wait_for(lambda: trainer_of(daemon) != trainer or daemon.poll() is not None)
        taker.kill()
        taker.communicate()
        output, errors = daemon.communicate(timeout=300)
    field.profile.write_text(profile)
    if daemon.returncode not in (0, 75):
        return f"the daemon ended with {daemon.returncode}: {errors[-300:]}"
    device.notes.append("killed" if "was killed for lack of memory" in output else "escaped")
    return None


def damaged_release(device: Device) -> str | None:
    """A file of the current release is changed, cut, replaced by a link, writable for others, or gone."""
    current = device.field.state / "model" / "current"
    damaged = device.field.current()
    file = device.chance.choice(sorted(path for path in current.resolve().iterdir() if path.stat().st_size))
    harm = device.chance.choice(("flip", "cut", "link", "mode", "gone"))
    if harm == "flip":
        content = bytearray(file.read_bytes())
        content[device.chance.randrange(len(content))] ^= 1 << device.chance.randrange(8)
        file.write_bytes(content)
    elif harm == "cut":
        os.truncate(file, device.chance.randrange(file.stat().st_size))
    elif harm == "mode":
        file.chmod(0o666)
    else:
        elsewhere = device.field.root / "elsewhere"
        shutil.move(file, elsewhere)
        if harm == "link":
            file.symlink_to(elsewhere)
    said = device.run()
    return (
        None
        if "went back to release" in said
        else f"{harm} {file.name} of {damaged}: it does not say that it went back"
    )


FAULTS: dict[str, Fault] = {
    "store truncated": truncated_store,
    "store truncated while training": truncated_store_while_training,
    "store locked": locked_store,
    "spool file half written": half_written_file,
    "line of 100 MB": long_line,
    "invalid text": invalid_text,
    "1 M lines": many_lines,
    "clock a year back": clock_set_back,
    "three daemons at once": two_daemons,
    "trainer killed for memory": out_of_memory,
    "current release damaged": damaged_release,
}
