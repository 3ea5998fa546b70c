"""Runs edge-far and judges how it ends: as a user does, in a process of its own, or in this one.

A start of Python takes longer than most commands on a tiny bundle, ten times longer on the workstation, where ONNX
Runtime brings torch along. A process of its own have those who kill it, or measure what it holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_far.cli import main
from tests.memory_streams import content_of, streams_in_memory
from tests.tiny_cases import REPOSITORY

ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY)}


def edge_far(*arguments: str | Path, input: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; it must not leave a traceback, whatever happened."""
    command = [sys.executable, "-m", "edge_far.cli", *map(str, arguments)]
    raw = subprocess.run(command, capture_output=True, input=input, check=False, env=ENVIRONMENT, timeout=120)
    done = subprocess.CompletedProcess(command, raw.returncode, raw.stdout.decode(), raw.stderr.decode())
    assert "Traceback" not in done.stderr, done.stderr
    return done


def edge_far_here(*arguments: str | Path, input: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process; what nobody foresaw has its exit code too."""
    words = [*map(str, arguments)]
    with streams_in_memory(input or b"") as (out, err):
        code = main(words)
    return subprocess.CompletedProcess(words, code, content_of(out), content_of(err))


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command and return its process."""
    command = [sys.executable, "-m", "edge_far.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def succeed(*arguments: str | Path, apart: bool = False) -> dict[str, Any]:
    """Run a command with --json, which must succeed, here or apart; return its document."""
    done = (edge_far if apart else edge_far_here)(*arguments, "--json", "-q")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def fail(
    code: int, *arguments: str | Path, says: str = "", input: bytes | None = None, apart: bool = False
) -> dict[str, Any]:
    """Run a command with --json, which must fail with `code` and one line; return the document's error."""
    done = (edge_far if apart else edge_far_here)(*arguments, "--json", "-q", input=input)
    assert done.returncode == code, (done.returncode, done.stderr)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    line = lines.pop(0)
    assert line.startswith("edge-far: error: "), done.stderr
    assert all(more.startswith("  At '") for more in lines), done.stderr  # a profile tells all its errors at once
    assert says in "\n".join([line, *lines]), done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"error"}
    error: dict[str, Any] = document["error"]
    assert set(error) == {"kind", "message", "where", "hint", "exit_code"} and error["exit_code"] == code
    assert error["message"].splitlines()[0] in line
    return error


def learners_of(run: Path) -> bytes:
    """Return the bytes of a finished run's result."""
    return (run / "learners.safetensors").read_bytes()


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of a kind in a run's log."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [record for record in records if record["event"] == kind]
