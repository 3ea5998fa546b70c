"""A device in the field for tests: a tiny bundle, a state directory, commands run as a user would run them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = [f"w{number}" for number in range(95)]
PROFILE = """memory: {budget_mib: 400}
compute: {threads: 1}
pressure: {min_available_mib: 16, max_memory_psi_some_avg10_percent: null}
storage: {min_free_mib: 1}
adaptation: {learning_rate_percent: 100, min_new_examples: 10}
"""


class Field:
    """One device below `root`."""

    def __init__(self, root: Path, bundle: Path) -> None:
        self.root, self.bundle = root, bundle
        self.state = root / "state"
        self.profile = root / "profile.yaml"
        self.sensors = root / "sensors"
        self.sensors.mkdir()
        self.profile.write_text(PROFILE)
        self._dropped = 0

    def copied_to(self, root: Path) -> Field:
        """Return a device of the same past below another root; nothing may run on this one."""
        copy = type(self)(root, self.bundle)
        shutil.copytree(self.state, copy.state, symlinks=True, dirs_exist_ok=True)
        copy.profile.write_text(self.profile.read_text())
        copy._dropped = self._dropped
        return copy

    def feed(self, count: int, *, seed: int = 0, shuffled: bool = False, prefix: str = "") -> None:
        """Drop examples that the tiny model can learn, or with `shuffled` labels cannot."""
        random_ = random.Random(seed)
        lines = []
        for number in range(count):
            label = number % 5
            own = WORDS[label::5]
            text = " ".join(
                random_.choice(own if random_.random() < 0.7 else WORDS) for _ in range(random_.randint(2, 20))
            )
            told = random_.randrange(5) if shuffled else label
            lines.append(json.dumps({"text": f"{prefix}{text}", "label": f"label-{told}"}))
        self.drop("\n".join(lines) + "\n")

    def drop(self, text: str | bytes) -> None:
        """Drop one spool file as an application does."""
        spool = self.state / "spool"
        spool.mkdir(parents=True, exist_ok=True)
        self._dropped += 1
        temporary = spool / f".{self._dropped}.tmp"
        temporary.write_bytes(text.encode() if isinstance(text, str) else text)
        temporary.rename(spool / f"{self._dropped:06d}.jsonl")

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """Return a command line."""
        line = [sys.executable, "-m", "edge_far.cli", name, "--state", str(self.state), "--json", *map(str, arguments)]
        if name in ("daemon", "status", "adapt"):
            line += ["--profile", str(self.profile), "--sensors-root", str(self.sensors)]
        if name == "daemon":
            line += ["--bundle", str(self.bundle)]
        return line

    def run(self, name: str, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        """Run a command to its end and return its document."""
        done = subprocess.run(
            self.command(name, *arguments), capture_output=True, text=True, timeout=300, check=False, env=environment()
        )
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def once(self, *arguments: str | Path, status: int = 0) -> dict[str, Any]:
        """Run the timer's job."""
        return self.run("daemon", "--once", *arguments, status=status)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start the timer's job and return at once."""
        return subprocess.Popen(
            self.command("daemon", "--once", *arguments),
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment()},
        )

    def status(self) -> dict[str, Any]:
        """Return the status document."""
        return self.run("status")

    @property
    def run_log(self) -> Path:
        """The run log of the cycle under way."""
        return max(self.state.glob("cycle/run-*/log.jsonl"), default=self.state / "cycle" / "run-1" / "log.jsonl")

    def current(self) -> str:
        """Return the current release's name."""
        return (self.state / "model" / "current").readlink().name


def environment() -> dict[str, str]:
    """Return the environment of a quiet, single-threaded child, which may be measured for coverage."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}


def wait_for(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    """Wait until a condition holds."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


def has_stepped(field: Field, steps: int = 3) -> bool:
    """Return whether the trainer has done some steps."""
    try:
        return field.run_log.read_text().count('"event": "step"') >= steps
    except OSError:
        return False


def trainer_of(process: subprocess.Popen[str]) -> int | None:
    """Return the process id of a daemon's child that trains."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, IndexError):
            continue
        if parent == process.pid and b"train" in command:
            return int(entry.name)
    return None


def kill_trainer(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> int:
    """Send a signal to the trainer; return its process id."""
    wait_for(lambda: trainer_of(process) is not None)
    found = trainer_of(process)
    assert found is not None
    os.kill(found, number)
    return found
