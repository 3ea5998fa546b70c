"""docs/howto/tasks.md runs as it stands: each tutorial's commands, then its lines of Python, which answer the same.

`edge-far export` runs in the workstation's environment, all else in this one, the device's.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_cases import REPOSITORY

pytestmark = pytest.mark.device

PAGE = REPOSITORY / "docs" / "howto" / "tasks.md"
HOST = REPOSITORY / ".venv" / "bin" / "python"
MODEL = """
import sys
from pathlib import Path
from tests.tiny_models import make_tiny, make_tokenizer
make_tiny("bert").save_pretrained(sys.argv[1])
make_tokenizer("bert").save(str(Path(sys.argv[1]) / "tokenizer.json"))
"""


def run(directory: Path, *command: str | Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*map(str, command)], cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not HOST.exists():
        pytest.skip("there is no workstation's environment to export in (make env-host)")
    directory = tmp_path_factory.mktemp("encoder") / "model"
    run(REPOSITORY, HOST, "-c", MODEL, directory)
    return directory


HEADINGS = re.findall(r"^## .*: (\w+)$", PAGE.read_text(), re.MULTILINE)


def test_every_task_has_its_tutorial() -> None:
    from edge_far.tasks.registry import TASKS

    assert sorted(HEADINGS) == sorted(TASKS)


@pytest.mark.parametrize("task", HEADINGS)
def test_the_tutorial(task: str, model: Path, tmp_path: Path) -> None:
    page = PAGE.read_text()
    section = re.split(r"^## ", page.split(f": {task}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    (commands,), (code,) = blocks(section, "sh"), blocks(section, "python")
    data, rest = commands.split("END\n", 1)
    (tmp_path / "data.jsonl").write_text(data.split("\n", 1)[1])
    export, *others = rest.replace("MODEL", str(model)).splitlines()
    assert export.startswith("edge-far export") and "merge" in others[-1]
    assert f"task: {task}" in run(tmp_path, "bash", "-c", command(export, HOST) + " 2>&1") or task == "classify"
    shown = [run(tmp_path, "bash", "-c", command(line, Path(sys.executable))) for line in others]
    answer = json.loads(run(tmp_path, "bash", "-c", command(others[1], Path(sys.executable)) + " --json"))
    assert answer["task"] == task and shown[1].strip()
    (tmp_path / "ask.py").write_text(blocks(page, "python")[0] + code)
    found = run(tmp_path, sys.executable, "ask.py").strip()
    assert same(task, found, answer["predictions"][0]), (found, answer)


def command(line: str, python: Path) -> str:
    return line.replace("edge-far", f"{python} -m edge_far.cli", 1)


def same(task: str, found: str, told: dict[str, Any]) -> bool:
    """Say whether the application's lines print what `edge-far predict` tells."""
    if task == "classify":
        return bool(found == told["label"])
    if task == "multilabel":
        return sorted(ast.literal_eval(found)) == sorted(told["labels"])
    if task == "regress":
        return bool(float(found) == pytest.approx(told["value"], rel=1e-4))
    if task == "tag":
        return bool(ast.literal_eval(found) == list(zip(told["words"], told["tags"], strict=True)))
    return found == str(told["answer"])
