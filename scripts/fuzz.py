"""Feed hostile inputs to every reader of files, and look how each command ends: the long run of tests/fuzz.

    .venv-device/bin/python scripts/fuzz.py --minutes 40        what a device reads
    .venv/bin/python scripts/fuzz.py --minutes 20               the model to export
    .venv-device/bin/python scripts/fuzz.py --target manifest --seed 7 --first 100
    .venv-device/bin/python scripts/fuzz.py --again build/fuzz/manifest/7-103

An input is decided by target, seed and number alone, so a run that was cut off goes on with --first. Each slice of
inputs runs in a process of its own, with a limit on its memory; one that dies or hangs is a finding too. Of findings
that look alike the first three inputs are kept in build/fuzz, with what was wrong. Ends with 1 where there are any.
"""

from __future__ import annotations

import argparse
import base64
import collections
import json
import os
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.fuzz.targets.base import Case, Target
from tests.fuzz.targets.registry import targets_here
from tests.fuzz.watch import WAITING
from tests.tiny_cases import BUNDLES, REPOSITORY

# Set before torch and tokenizers are imported; a model's name in a changed file must not be looked up.
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
SLICE_S = 15.0
MEMORY_MIB = 6144  # address space of one slice
KEPT = 3
FINDINGS = REPOSITORY / "build" / "fuzz"


@dataclass
class Tally:
    """What one target has come to."""

    inputs: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    findings: dict[str, int] = field(default_factory=lambda: collections.defaultdict(int))


def main() -> int:
    """Run until the time is over; 1 where there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--share", type=float, default=1.0, help="of the minutes, for this environment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="N", help="begin with the N-th input of each target")
    parser.add_argument("--inputs", type=int, metavar="N", help="so many of each target, whatever the time")
    parser.add_argument("--target", action="append", help="default: all of this environment")
    parser.add_argument("--bundle", type=Path, default=BUNDLES / "tiny-fp32")
    parser.add_argument("--again", type=Path, metavar="DIR", help="run one kept input")
    options = parser.parse_args()
    os.environ.update(QUIET)
    kinds = {kind.name: kind for kind in targets_here()}
    if unknown := set(options.target or ()) - set(kinds):
        parser.error(f"no target {', '.join(sorted(unknown))} here; there are {', '.join(kinds)}")
    with tempfile.TemporaryDirectory(prefix="edge-far-fuzz-", dir=quick_directory()) as folder:
        os.environ["XDG_CACHE_HOME"] = tempfile.tempdir = str(Path(folder, "cache"))
        if options.again:
            return run_again(options.again, kinds, Path(folder), options.bundle.resolve())
        chosen = [kinds[name] for name in options.target or kinds]
        return Run(chosen, Path(folder), options).go()


class Run:
    """One long run over some targets, a slice of each in turn."""

    def __init__(self, kinds: list[type[Target]], place: Path, options: argparse.Namespace) -> None:
        self.kinds, self.place, self.options = kinds, place, options
        self.bundle = place / "bundle"
        shutil.copytree(options.bundle, self.bundle)  # the tests may build it anew meanwhile
        self.tallies = {kind.name: Tally() for kind in kinds}
        self.numbers = dict.fromkeys(self.tallies, options.first)

    def go(self) -> int:
        """Run all slices, print the table."""
        began = time.monotonic()
        ends = began + self.options.minutes * self.options.share * 60
        left = list(self.kinds)
        while left:
            for kind in list(left):
                if self.options.inputs is None and time.monotonic() >= ends:
                    left = []
                    break
                self.slice(kind, min(SLICE_S, max(1.0, ends - time.monotonic())))
                if self.options.inputs is not None and self.tallies[kind.name].inputs >= self.options.inputs:
                    left.remove(kind)
                self.tell(time.monotonic() - began)
        return self.table(time.monotonic() - began)

    def slice(self, kind: type[Target], seconds: float) -> None:
        """Run some inputs of one target in a child."""
        tally = self.tallies[kind.name]
        began = time.monotonic()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            self.work(kind, writer, seconds)
        os.close(writer)
        died = self.follow(kind, child, reader)
        tally.seconds += time.monotonic() - began
        if died is not None:
            self.found(kind, self.numbers[kind.name], died)
            self.numbers[kind.name] += 1
            tally.inputs += 1

    def work(self, kind: type[Target], writer: int, seconds: float) -> None:
        """The child: report each input's end as one line."""
        try:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MIB << 20, MEMORY_MIB << 20))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            target = kind(self.place, self.bundle)
            ends = time.monotonic() + seconds
            number, done = self.numbers[kind.name], self.tallies[kind.name].inputs
            while time.monotonic() < ends and (self.options.inputs is None or done < self.options.inputs):
                began = time.monotonic()
                problem = target.problem(target.make(self.chance(kind, number)))
                line = json.dumps({"problem": problem, "seconds": time.monotonic() - began})
                os.write(writer, line.encode() + b"\n")
                number, done = number + 1, done + 1
        except BaseException as error:
            os.write(2, f"\nthe harness failed: {error!r} at {place_of(error)}\n".encode())
            os.kill(os.getpid(), signal.SIGUSR2)
        finally:
            os._exit(0)

    def follow(self, kind: type[Target], child: int, reader: int) -> str | None:
        """Take the child's lines; return how it died, where it did."""
        hangs = False
        with os.fdopen(reader, "rb", buffering=0) as lines:
            pending = b""
            while True:
                ready, _, _ = select.select([lines], [], [], kind.seconds * WAITING + 60)
                if not ready:
                    hangs = True
                    os.kill(child, signal.SIGKILL)
                    break
                piece = lines.read(65536)
                if not piece:
                    break
                *whole, pending = (pending + piece).split(b"\n")
                for line in whole:
                    self.take(kind, json.loads(line))
        _, status = os.waitpid(child, 0)
        if hangs:
            return "hangs in native code"
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGUSR2:
            raise SystemExit(f"target {kind.name}: the harness failed at input {self.numbers[kind.name]}")
        return f"the process died: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}" if code else None

    def take(self, kind: type[Target], line: dict[str, Any]) -> None:
        """Count one input."""
        tally = self.tallies[kind.name]
        tally.inputs += 1
        tally.slowest_s = max(tally.slowest_s, line["seconds"])
        if line["problem"] is not None:
            self.found(kind, self.numbers[kind.name], line["problem"])
        self.numbers[kind.name] += 1

    def found(self, kind: type[Target], number: int, problem: str) -> None:
        """Keep an input with what was wrong, unless some that look alike are kept already."""
        alike = alike_of(problem)
        findings = self.tallies[kind.name].findings
        findings[alike] += 1
        if findings[alike] > KEPT:
            return
        folder = FINDINGS / kind.name / f"{self.options.seed}-{number}"
        case = kind(self.place, self.bundle).make(self.chance(kind, number))
        keep(folder, kind.name, case, problem)
        print(
            f"\n{kind.name} {number}: {problem[:300]}\n    {folder.relative_to(REPOSITORY)}",
            file=sys.stderr,
            flush=True,
        )

    def chance(self, kind: type[Target], number: int) -> Random:
        """Return what decides the input of this number."""
        return Random(f"{self.options.seed}/{kind.name}/{number}")

    def tell(self, seconds: float) -> None:
        """Print the line of progress."""
        inputs = sum(tally.inputs for tally in self.tallies.values())
        found = sum(len(tally.findings) for tally in self.tallies.values())
        text = f"{seconds / 60:.1f} min: {inputs} inputs, {inputs / max(seconds, 1e-9):.0f} a second, {found} findings"
        print(f"\r{text}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)

    def table(self, seconds: float) -> int:
        """Print what each target came to."""
        print(f"\nseed {self.options.seed}, {seconds / 60:.1f} min\n")
        print("| target | inputs | a second | slowest, s | findings |")
        print("|---|---|---|---|---|")
        for name, tally in self.tallies.items():
            rate = tally.inputs / max(tally.seconds, 1e-9)
            print(f"| {name} | {tally.inputs} | {rate:.0f} | {tally.slowest_s:.1f} | {len(tally.findings)} |")
        for name, tally in self.tallies.items():
            for alike, count in sorted(tally.findings.items(), key=lambda item: -item[1]):
                print(f"{name}: {count} x {alike}")
        return int(any(tally.findings for tally in self.tallies.values()))


def alike_of(problem: str) -> str:
    """Return a problem without what differs from input to input: of an exception its kind and place alone."""
    if found := re.match(r"\w+ at [^ :]*edge_far[^ :]*:\d+", problem):
        return found[0]
    text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/edge-far-fuzz\S*", "'...'", problem)
    return re.sub(r"\d+", "#", text)[:160]


def place_of(error: BaseException) -> str:
    """Return where an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}:{frame.lineno}"


def quick_directory() -> Path | None:
    """Return a directory in memory where there is one with room, for the store syncs every case; else None."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 256 << 20 else None


def keep(folder: Path, target: str, case: Case, problem: str) -> None:
    """Write an input so that a person can look at it and --again can run it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    python = Path(sys.executable).absolute()
    python = python.relative_to(REPOSITORY) if python.is_relative_to(REPOSITORY) else python
    document = {
        "target": target,
        "problem": problem,
        "again": f"{python} scripts/fuzz.py --again '{folder.relative_to(REPOSITORY)}'",
        "arguments": case.arguments,
        "stdin": base64.b64encode(case.stdin).decode(),
        "files": list(case.files),
    }
    (folder / "case.json").write_text(json.dumps(document, indent=2) + "\n")
    for number, content in enumerate(case.files.values()):
        (folder / f"file-{number}").write_bytes(content)


def run_again(folder: Path, kinds: dict[str, type[Target]], place: Path, bundle: Path) -> int:
    """Run a kept input in this process; 1 where something is still wrong."""
    document = json.loads((folder / "case.json").read_bytes())
    files = {name: (folder / f"file-{number}").read_bytes() for number, name in enumerate(document["files"])}
    case = Case(files, tuple(document["arguments"]), base64.b64decode(document["stdin"]))
    problem = kinds[document["target"]](place, bundle).problem(case)
    print(problem or "nothing is wrong (any more)")
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main())
