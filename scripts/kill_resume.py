"""Kill a training run again and again, resume it each time, and compare its result with an uninterrupted run's.

    python scripts/kill_resume.py BUNDLE --train FILE --kills 20 -- --epochs 100 --checkpoint-steps 3

What follows `--` goes to `edge-far train` as it is. Half of the signals come at a random moment, half as soon as a
checkpoint is being written; runs are repeated until there were enough. Prints one JSON document; exits with 1 where a
result differs in a byte, or where a process ends otherwise than it must. Works in both environments.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Signal -> the exit status that `edge-far train` must end with.
EXPECTED = {"KILL": -signal.SIGKILL, "INT": 130, "TERM": 75}
WRITING_S = 0.02  # a checkpoint takes about as long to write
PATIENCE_S = 60.0


@dataclass
class Tally:
    """What happened; `kept` are the steps that resumed processes continued from."""

    signals: int = 0
    while_writing: int = 0
    before_training: int = 0
    runs: int = 0
    digests: list[str] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    slowest_end_s: float = 0.0


def main() -> int:
    """Run the experiment; return the exit status."""
    options, passed_on = parse(sys.argv[1:])
    work = Path(tempfile.mkdtemp(prefix="kill-resume-", dir=options.work))
    command = [sys.executable, "-m", "edge_far.cli", "train", str(options.bundle), "--train", str(options.train), "-q"]
    command += passed_on
    chance = random.Random(options.seed)
    try:
        began = time.monotonic()
        reference = work / "reference"
        finish([*command, "--out", str(reference)])
        seconds = time.monotonic() - began
        expected = digest(reference)
        tally = Tally()
        while tally.signals < options.kills:
            tally.runs += 1
            torment(command, work / f"run-{tally.runs}", options, chance, seconds, tally)
        identical = sum(found == expected for found in tally.digests)
        steps = json.loads((reference / "result.json").read_bytes())["steps"]
        report = {
            "signal": f"SIG{options.signal}",
            "signals": tally.signals,
            "while_writing_a_checkpoint": tally.while_writing,
            "before_the_first_step": tally.before_training,
            "runs": tally.runs,
            "identical": identical,
            "steps": steps,
            "uninterrupted_s": round(seconds, 2),
            "slowest_end_s": round(tally.slowest_end_s, 2),
            "resumed_from": tally.kept,
            "sha256": expected,
        }
        print(json.dumps(report))
        return 0 if identical == tally.runs else 1
    finally:
        shutil.rmtree(work)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and what follows `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", choices=EXPECTED, default="KILL")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, help="where the runs are put (default: the temporary directory)")
    return parser.parse_args(arguments[:end]), arguments[end + 1 :]


def torment(
    command: list[str],
    run: Path,
    options: argparse.Namespace,
    chance: random.Random,
    seconds: float,
    tally: Tally,
) -> None:
    """Start and resume one run until it is done, with a signal to each process but the last ones."""
    while True:
        started = (run / "run.json").is_file()
        resume = ["--resume"] if started else []
        if tally.signals == options.kills:
            finish([*command, "--out", str(run), *resume])
            break
        process = subprocess.Popen(
            [*command, "--out", str(run), *resume], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        wait_for_moment(process, run, options.signal, chance, seconds)
        if process.poll() is None:
            sent = time.monotonic()
            process.send_signal(getattr(signal, f"SIG{options.signal}"))
        messages = process.communicate(timeout=PATIENCE_S)[1]
        if process.returncode == 0 or (run / "result.json").is_file():
            break  # it was done before the signal
        if process.returncode != EXPECTED[options.signal] or "Traceback" in messages:
            raise SystemExit(f"ended with {process.returncode}: {messages}")
        tally.slowest_end_s = max(tally.slowest_end_s, time.monotonic() - sent)
        tally.signals += 1
        tally.while_writing += being_written(run)
        steps = logged(run, "step")
        tally.before_training += not steps
        tally.kept.append(max(kept_steps(run), default=0))
    tally.digests.append(digest(run))


def wait_for_moment(
    process: subprocess.Popen[str], run: Path, kind: str, chance: random.Random, seconds: float
) -> None:
    """Wait for a random moment: of the process's life, or of the writing of some checkpoint."""
    delay = chance.uniform(0.0, 0.3 * seconds)
    aimed = chance.random() < 0.5
    before = logged(run, "step")
    deadline = time.monotonic() + PATIENCE_S
    if kind != "KILL" or aimed:  # Python itself does not take Ctrl-C well before the command has begun
        while process.poll() is None and logged(run, "step") == before and time.monotonic() < deadline:
            time.sleep(0.002)
    deadline = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    deadline = time.monotonic() + 1.0
    while aimed and process.poll() is None and not being_written(run) and time.monotonic() < deadline:
        pass
    if aimed:
        time.sleep(chance.uniform(0.0, WRITING_S) if chance.random() < 0.5 else 0.0)


def being_written(run: Path) -> bool:
    """Say whether there is an unfinished checkpoint."""
    return any((run / "checkpoints").glob(".step-*.tmp"))


def kept_steps(run: Path) -> list[int]:
    """Return the steps of the complete checkpoints."""
    return [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]


def logged(run: Path, event: str) -> int:
    """Return how many events of a kind the run's log holds."""
    log = run / "log.jsonl"
    return log.read_bytes().count(f'"event": "{event}"'.encode()) if log.is_file() else 0


def finish(command: list[str]) -> None:
    """Run to the end; exits where that fails."""
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")


def digest(run: Path) -> str:
    """Return the hash of the run's result, after checking the one in result.json."""
    found = hashlib.sha256((run / "learners.safetensors").read_bytes()).hexdigest()
    result: dict[str, Any] = json.loads((run / "result.json").read_bytes())
    if result["learners_sha256"] != found:
        raise SystemExit(f"{run}: result.json holds another hash")
    return found


if __name__ == "__main__":
    sys.exit(main())
