"""The net under the checks: whatever a loader raises becomes one line that says something."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from edge_far.errors import DataError, StorageError, Unavailable

pytestmark = pytest.mark.host


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ValueError("BertLayer(\n  (attention): BertAttention(\n  )\n)\nhas no weight named x"),
            "has no weight named x",
        ),
        (
            ValueError("Validation error for 'x':\n    TypeError: expected float"),
            "Validation error for 'x': TypeError:",
        ),
        (KeyError("hidden_size"), "KeyError: 'hidden_size'"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("\x1b[31mit is\tall   red\x1b[0m"), "it is all red"),
        (pickle.UnpicklingError("run with weights_only=False"), "holds other things than weights"),
        (ValueError("a b c " * 1000), "..."),
    ],
)
def test_a_reason_is_one_telling_line(error: Exception, reason: str) -> None:
    from edge_far.models.guard import MAX_REASON, reason_of

    found = reason_of(error)
    assert reason in found and "\n" not in found and "\x1b" not in found and len(found) <= MAX_REASON


@pytest.mark.parametrize(
    ("error", "becomes", "says"),
    [
        (TypeError("expected str, got int"), Unavailable, "cannot load: expected str, got int"),
        (ModuleNotFoundError("No module named 'mecab'", name="mecab"), Unavailable, "the package mecab is missing"),
        (ImportError("Using `x` requires y"), Unavailable, "Using `x` requires y"),
        (OSError("no file named model.safetensors here"), Unavailable, "no file named"),
        (FileNotFoundError(errno.ENOENT, "No such file", "vocab.txt"), Unavailable, "vocab.txt"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/m/w.bin"), StorageError, "/m/w.bin: cannot read"),
        (DataError("as it is"), DataError, "as it is"),
        (MemoryError(), MemoryError, ""),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (type("PanicException", (BaseException,), {})("index out of bounds"), Unavailable, "index out of bounds"),
    ],
)
def test_what_a_loader_raises(error: BaseException, becomes: type[BaseException], says: str) -> None:
    from edge_far.models.guard import guarded

    with pytest.raises(becomes) as caught, guarded("cannot load", "somewhere", "do this"):
        raise error
    assert type(caught.value) is becomes and says in str(caught.value)


def test_both_streams_stay_clean(capfd: pytest.CaptureFixture[str]) -> None:
    from tokenizers import AddedToken

    from edge_far.models.guard import guarded

    with guarded("cannot load", "somewhere", "do this"):
        AddedToken("x", foo=1)  # Rust prints a remark
    print("the result")
    out, err = capfd.readouterr()
    assert (out, err) == ("the result\n", "")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ModuleNotFoundError(\"No module named 'regex'\", name='regex')", "the package regex is missing"),
        ("raise RuntimeError('this build needs another torch')", "transformers does not start: this build needs"),
    ],
)
def test_transformers_that_is_broken(code: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "transformers.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-c", "from edge_far.models.guard import transformers_package as p\np()"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("edge_far.errors.Unavailable: a model cannot be read here") and says in last
