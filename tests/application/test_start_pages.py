"""The shell blocks of docs/start/first-run.md and your-data.md run as they stand, in a folder with both environments.

The model is tiny, the data few. A block that cannot be run says why in a comment before it. `.venv` is the
workstation's environment; `venv`, the board's, is this one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_cases import REPOSITORY

pytestmark = [pytest.mark.device, pytest.mark.slow]

START = REPOSITORY / "docs" / "start"
HOST = REPOSITORY / ".venv" / "bin" / "python"
BLOCK = re.compile(r"(<!-- not run by the test: [^>]+ -->\n)?\n((?: {4}\S.*\n)+)")
MODEL = """
import sys
from pathlib import Path
from tests.tiny_models import make_tiny, make_tokenizer
make_tiny("bert").save_pretrained(sys.argv[1])
make_tokenizer("bert").save(str(Path(sys.argv[1]) / "tokenizer.json"))
"""
DEMO = (REPOSITORY / "scripts" / "demo.sh").read_text()


def blocks(page: str) -> list[tuple[str, bool]]:
    """Return a page's indented blocks, each with whether it is to be run."""
    found = BLOCK.findall((START / page).read_text())
    return [(re.sub(r"^ {4}", "", block, flags=re.MULTILINE), not mark) for mark, block in found]


def shell(folder: Path, script: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{script}\n{done.stderr}"
    return done.stdout


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with what the pages take for granted: environments, a model, three files of data."""
    if not HOST.exists():
        pytest.skip("there is no workstation's environment to export in (make env-host)")
    folder = tmp_path_factory.mktemp("start")
    for environment, python in ((".venv", HOST), (".venv-device", sys.executable), ("venv", sys.executable)):
        program = folder / environment / "bin" / "edge-far"
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\nexec {python} -m edge_far.cli "$@"\n')
        program.chmod(0o755)
    shell(folder, f"{HOST} -c '{MODEL}' my-model")
    data, _ = blocks("your-data.md")[0]
    of_page = [json.loads(line) for line in data.splitlines()]
    assert [sorted(record) for record in of_page] == [["label", "text"]] * 2
    own = {"light_on": "w1 w2 w3", "alarm_set": "w7 w8 w9"}
    for name, count in (("train", 12), ("eval", 4), ("test", 4)):
        more = [{"text": f"{own[r['label']]} w{20 + n}", "label": r["label"]} for n in range(count) for r in of_page]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in [*of_page, *more]))
    return folder


def test_every_block_of_your_data_runs(folder: Path) -> None:
    told = blocks("your-data.md")
    commands = [block for block, wanted in told[1:] if wanted]
    assert len(commands) == 6 and [block.split()[0] for block, wanted in told if not wanted] == ["scp"]
    shown = [shell(folder, block) for block in commands]
    assert shown[1].startswith("fits ")
    assert "8 steps" in shown[2] and shown[3].count("accuracy") >= 2  # 26 texts, four epochs in batches of 16
    assert (folder / "run.png").is_file() and (folder / "model" / "model.onnx").is_file()


def test_the_block_of_the_first_run_that_asks_the_model(folder: Path) -> None:
    told = blocks("first-run.md")
    ((made, _),) = [told for told in told if not told[1]]
    assert made.strip() == "make demo"
    (ask,) = [block for block, wanted in told if wanted]
    (folder / "build" / "demo").mkdir(parents=True, exist_ok=True)
    (folder / "build" / "demo" / "model").symlink_to(folder / "model")
    assert re.search(r"light_on|alarm_set", shell(folder, ask))


def test_what_the_first_run_says_of_the_demo_is_what_its_script_does() -> None:
    text = (START / "first-run.md").read_text()
    steps = re.findall(r"^(\d)\. ", text, re.MULTILINE)
    assert [f"{number}/{len(steps)}" for number in steps] == re.findall(r'^say "(\d/\d) ', DEMO, re.MULTILINE)
    table = text.split("## What it leaves")[1].split("\n\nTry")[0]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    left = re.findall(r"`([\w./]+)`", " ".join(cells))
    assert len(left) >= 8
    for name in left:
        stem = name.rstrip("/").removesuffix(".json")
        assert f"$OUT/{name.rstrip('/')}" in DEMO or re.search(rf"^ *step {stem} ", DEMO, re.MULTILINE), name
    for variable in ("EPOCHS", "PROFILE", "SEED", "MINUTES"):
        assert f"{variable}=${{{variable}:-" in DEMO and f"`{variable}=" in text
