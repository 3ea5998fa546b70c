"""Few but very long lines: every command that reads texts stays inside the budget, for it never holds them together."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far import cli
from edge_far.bundle import Bundle

pytestmark = pytest.mark.device

LINES, CHARACTERS = 8, 900_000
# What a tiny bundle leaves of it is less than a fifth of what the tokenizer takes for these lines as they are.
BUDGET_MIB = 150
PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # should it ever be wrong, the machine survives
from edge_far import cli
from edge_far.device.board.memory import resident_set
code = cli.main(sys.argv[1:])
print(resident_set().peak_mib, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def long_lines(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Callable[[str], Bundle]) -> Path:
    labels = tiny_bundle("tiny-fp32").manifest.labels
    path = tmp_path_factory.mktemp("long") / "long.jsonl"
    with path.open("w") as file:
        for number in range(LINES):
            half = f"w{number} w1 w2, " * (CHARACTERS // 22)
            text = {"text": half, "text_pair": f"{half}w3"} if number % 2 else {"text": half + half}
            file.write(json.dumps({**text, "label": labels[number % len(labels)]}) + "\n")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Callable[[str], Bundle]) -> Path:
    out = tmp_path_factory.mktemp("merged") / "model"
    assert cli.main(["merge", str(tiny_bundle("tiny-fp32").root), "--out", str(out), "-q"]) == 0
    return out


def peak_mib(*arguments: str | Path) -> float:
    """Return the highest resident set of a fresh process that runs a command."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return float(done.stderr.splitlines()[-1])


def test_training_stays_inside_its_budget(
    long_lines: Path, tiny_bundle: Callable[[str], Bundle], tmp_path: Path
) -> None:
    peak = peak_mib(
        *(
            "train",
            tiny_bundle("tiny-fp32").root,
            "--train",
            long_lines,
            "--eval",
            long_lines,
            "--out",
            tmp_path / "run",
        ),
        *("--max-steps", "1", "--batch-size", "4", "--budget-mib", str(BUDGET_MIB), "--no-probe", "-q"),
    )
    assert peak < BUDGET_MIB


def test_evaluation_and_prediction(long_lines: Path, model: Path, tiny_bundle: Callable[[str], Bundle]) -> None:
    root = tiny_bundle("tiny-fp32").root
    assert peak_mib("eval", root, "--data", long_lines, "--json") < BUDGET_MIB
    for source in (root, model):
        assert peak_mib("predict", source, "--data", long_lines, "--max-seq-len", "64", "--json") < BUDGET_MIB


def test_the_gate(long_lines: Path, model: Path, tmp_path: Path) -> None:
    settings = json.dumps({"min_examples": 1})
    peak = peak_mib(
        *("decide", "--candidate", model, "--current", model, "--held-out", long_lines, "--settings", settings),
        *("--max-seq-len", "64", "--out", tmp_path / "decision.json", "-q"),
    )
    assert peak < BUDGET_MIB
