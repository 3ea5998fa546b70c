"""The code of docs/howto/use-the-model.md runs as it stands, but for its paths, and all of it answers the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_far import Model
from edge_far.daemon.intake.records import LabelledExample, RecordReader
from tests.application.releases import Service

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "use-the-model.md"
TEXTS = ("is the front door locked", "it is far too bright in here")


def block(language: str, mark: str, service: Service) -> str:
    """Return the page's block of code that holds `mark`, with the paths of this test."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [code for code in blocks if mark in code]
    moved = found.replace("/run/edgefar/model/current", str(service.link)).replace(
        "/var/spool/edge-far", str(service.spool)
    )
    assert str(service.link) in moved
    return str(moved)


def run(*command: str, environment: dict[str, str] | None = None) -> list[tuple[str, float]]:
    """Return label and probability of each line that a program prints."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **(environment or {})}
    )
    assert done.returncode == 0, done.stderr
    return [(line.split()[0], float(line.split()[1])) for line in done.stdout.splitlines()]


def expected(service: Service, texts: tuple[str, ...] = TEXTS) -> list[tuple[str, float]]:
    answers = [Model(service.link, threads=1).predict(text) for text in texts]
    return [(answer.label, pytest.approx(answer.probability, abs=1e-5)) for answer in answers]


def test_the_five_lines(service: Service) -> None:
    code = block("python", "import Model", service).replace(
        'Model("', f'Model(spool={str(service.spool)!r}, directory="'
    )
    assert run(sys.executable, "-c", code) == expected(service)[:1]
    (line,) = service.spooled
    assert (json.loads(line)["text"], json.loads(line)["label"]) == (TEXTS[0], "door_status")


def test_onnx_runtime_alone(service: Service) -> None:
    code = block("python", "class Loaded", service)
    assert "edge_far" not in code
    assert run(sys.executable, "-c", code) == expected(service)
    (path,) = service.spool.glob("*.jsonl")
    record = RecordReader(None).read(path.read_bytes().rstrip(b"\n"))
    assert isinstance(record, LabelledExample) and record.example.label == "light_dim"
    assert path.stat().st_mode & 0o777 == 0o640 and not list(service.spool.glob(".*"))


def test_node(service: Service, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    for package in ("onnxruntime-node", "@huggingface/tokenizers"):
        if subprocess.run([node, "-e", f"require('{package}')"], capture_output=True, check=False).returncode:
            pytest.skip(f"node finds no package {package}: npm install it, and name its folder in NODE_PATH")
    code = block("javascript", "require", service)
    known = ("w1 w2", "w3 " * 100)  # the package has no unknown words in tokenizers as simple as the tiny model's
    for text, other in zip(TEXTS, known, strict=True):
        assert text in code
        code = code.replace(text, other)
    script = tmp_path / "ask.cjs"
    script.write_text(code)
    assert run(node, str(script)) == expected(service, known)
