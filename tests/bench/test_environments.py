"""Which interpreter measures which engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edge_far.bench import environments
from edge_far.bench.environments import describe_machine, find_environments, python_or_exit
from edge_far.errors import InputMissing, UsageError


def test_a_missing_interpreter_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="no such interpreter"):
        find_environments(tmp_path / "python")


def test_an_unfit_interpreter_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'onnxruntime'\" >&2\nexit 1\n")
    script.chmod(0o755)
    with pytest.raises(UsageError, match="No module named 'onnxruntime'"):
        find_environments(script)


def test_an_old_runtime_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 1.19.2\n")
    script.chmod(0o755)
    with pytest.raises(UsageError, match=r"1\.19\.2, older than 1\.23"):
        find_environments(script)
    script.write_text("#!/bin/sh\necho 1.100.0\n")
    assert find_environments(script)["edge-far"].python == script


def test_without_torch_its_rows_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.importlib.util, "find_spec", lambda name: None)
    found = find_environments(None)
    assert found["torch"].python is None and found["torch"].reason == "torch is not installed"
    assert found["ort-training"].python is None and "not installed" in found["ort-training"].reason


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["cpu"] and machine["memory_mib"] > 0
    assert machine["python"] == ".".join(map(str, sys.version_info[:3]))


def test_a_script_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="torch"):
        python_or_exit("torch")
