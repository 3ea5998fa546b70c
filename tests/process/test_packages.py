"""A broken environment in front of a user: 69 and one line that names what does not start, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.errors import Unavailable
from edge_far.process.packages import explain_import, refuse_deadly_packages
from tests.tiny_cases import REPOSITORY

KILLED = "import os, signal; os.kill(os.getpid(), signal.{})"


def run(*words: str | Path, first: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the folder `first` before all other packages, and an empty cache."""
    environment = os.environ | {
        "PYTHONPATH": f"{first}{os.pathsep}{REPOSITORY}",
        "XDG_CACHE_HOME": str(first / "cache"),
    }
    command = [sys.executable, "-m", "edge_far.cli", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment | more, timeout=120, cwd=first
    )


def refusal(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 69, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("edge-far: error: ") and all(part in line for part in says), line
    if done.stdout:
        error = json.loads(done.stdout)["error"]
        assert (error["kind"], error["exit_code"]) == ("Unavailable", 69)


@pytest.mark.device
@pytest.mark.parametrize(
    ("package", "content", "says"),
    [
        ("onnxruntime", KILLED.format("SIGILL"), "ONNX Runtime does not start here: its import is killed by SIGILL"),
        ("onnxruntime", KILLED.format("SIGKILL"), "ONNX Runtime does not start here: its import is killed by SIGKILL"),
        ("tokenizers", KILLED.format("SIGSEGV"), "tokenizers does not start here: its import is killed by SIGSEGV"),
        ("numpy", "import os; os._exit(0)", "NumPy does not start here: its import ends the process with status 0"),
    ],
)
def test_a_package_that_kills_whoever_imports_it(
    package: str, content: str, says: str, tmp_path: Path, tiny_bundle: Callable[[str], Bundle]
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(content)
    done = run("predict", tiny_bundle("tiny-fp32").root, "w1", "--json", first=tmp_path)
    refusal(done, says, str(tmp_path / package))
    assert not list((tmp_path / "cache").rglob("starts-*"))


@pytest.mark.device
@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("raise RuntimeError('first line\\nsecond line')", "tokenizers does not start here: RuntimeError: first line"),
        ("raise ImportError('libgomp.so.1: cannot open shared object file')", "ImportError: libgomp.so.1"),
        ("raise SystemExit", "tokenizers does not start here: SystemExit"),
        ("raise ModuleNotFoundError(name='tokenizers')", "the package tokenizers is not installed here"),
        ("import nothing_of_that_name", "the package nothing_of_that_name is not installed here"),
        ("", "tokenizers does not start here: ImportError: cannot import name 'Encoding'"),
        ("1 +", "tokenizers does not start here: SyntaxError"),
    ],
)
def test_a_stray_file_in_the_working_directory(
    content: str, says: str, tmp_path: Path, tiny_bundle: Callable[[str], Bundle], tiny_data: Path
) -> None:
    (tmp_path / "tokenizers.py").write_text(content)
    words = ["train", tiny_bundle("tiny-fp32").root, "--train", tiny_data, "--out", tmp_path / "run"]
    done = run(*words, first=tmp_path)
    refusal(done, says)
    assert ("not installed" in says) != (str(tmp_path / "tokenizers.py") in done.stderr)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("module", "told"), [("_ctypes", "ctypes"), ("_sqlite3", "sqlite3")])
def test_a_python_that_was_built_without_a_library(module: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules['{module}'] = None")
    done = run("status", "--state", tmp_path / "state", first=tmp_path)
    refusal(done, f"this Python was built without {told}", sys.executable)


@pytest.mark.parametrize("command", ["train", "predict", "eval", "plan", "merge"])
def test_a_package_of_the_device_that_is_not_there(command: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['numpy'] = None")
    done = run(command, tmp_path, first=tmp_path)
    refusal(done, "the package numpy is not installed here (pip install './edge-far[device]'  # beside the checkout)")


def test_what_starts_is_remembered_until_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process does not try again; another file of the package is tried anew."""
    package = tmp_path / "onnxruntime.py"
    package.write_text(f"open({str(tmp_path / 'imports')!r}, 'a').write('x')")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("edge_far.process.packages.NATIVE", ("onnxruntime",))
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for _ in range(2):
        refuse_deadly_packages()
    assert (tmp_path / "imports").read_text() == "x"
    package.write_text(KILLED.format("SIGILL"))
    with pytest.raises(Unavailable, match="killed by SIGILL"):
        refuse_deadly_packages()
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "")
    monkeypatch.delenv("CACHE_DIRECTORY", raising=False)
    with pytest.raises(Unavailable, match="killed by SIGILL"):
        refuse_deadly_packages()


def caught(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as raised:
        action()
    return raised.value


def test_errors_of_work_are_no_errors_of_imports() -> None:
    def divide() -> float:
        return 1 / 0

    def take_what_is_not_there() -> object:
        return os.no_such_function  # type: ignore[attr-defined]

    assert explain_import(caught(divide), "device") is None
    assert explain_import(caught(take_what_is_not_there), "device") is None
    assert explain_import(ImportError("cannot import name 'x' from 'edge_far.y'", name="edge_far.y"), "device") is None


def test_a_room_of_ours_that_is_missing() -> None:
    error = caught(lambda: __import__("edge_far.device.no_such_room"))
    told = explain_import(error, "device")
    assert told is not None and "edge-far is not installed completely" in str(told)


def test_the_first_of_a_chain_is_told() -> None:
    """NumPy raises many lines of advice from the error that says what is wrong."""
    error = ImportError("\n\nIMPORTANT: PLEASE READ THIS\n\n...", name="numpy")
    error.__cause__ = ImportError("libopenblas.so.0: cannot open shared object file")
    told = explain_import(error, "device")
    assert told is not None and "NumPy does not start here: ImportError: libopenblas.so.0: cannot open" in str(told)
