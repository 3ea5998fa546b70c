"""`edge-far export` where a file may not grow, and where paths are not UTF-8: whole, or absent and one line."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_far.bundles.bundle import open_bundle
from edge_far.cli import main
from tests.faults.processes import ENVIRONMENT

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import make_examples, make_tiny, make_tokenizer

    folder = tmp_path_factory.mktemp("source")
    make_tiny("bert").save_pretrained(folder / "model")
    make_tokenizer("bert").save(str(folder / "model" / "tokenizer.json"))
    (folder / "train.jsonl").write_text("".join(json.dumps(example) + "\n" for example in make_examples(20)))
    return folder / "model"


def words(model: Path, data: Path, out: Path) -> list[str]:
    """Return the words of a short export."""
    options = ["--selection", "first", "--start", "reset", "--no-ort", "--json", "-q"]
    return ["export", "--model", str(model), "--train", str(data), "--out", str(out), *options]


def run(line: list[str], **settings: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "edge_far.cli", *line]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, env=ENVIRONMENT, **settings)


def test_where_no_file_may_grow_that_is_told_before_the_model_is_read(model: Path, tmp_path: Path) -> None:
    done = run(
        words(model, model.parent / "train.jsonl", tmp_path / "bundle"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 74 and "cannot write: File too large (raise the limit" in line
    assert json.loads(done.stdout)["error"]["exit_code"] == 74
    assert list(tmp_path.iterdir()) == []


def test_data_and_output_may_have_names_in_any_bytes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / os.fsdecode(b"\xff a\nb")
    folder.mkdir()
    data = folder / "train.jsonl"
    data.write_bytes((model.parent / "train.jsonl").read_bytes())
    assert main(words(model, data, folder / "bundle")) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == str(folder / "bundle")
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "train.jsonl"]
    assert open_bundle(folder / "bundle").manifest.labels


def test_a_model_must_have_a_name_in_utf8(model: Path, tmp_path: Path) -> None:
    other = tmp_path / os.fsdecode(b"\xff")
    other.symlink_to(model)
    done = run(words(other, model.parent / "train.jsonl", tmp_path / "bundle"))
    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 69 and "names in UTF-8 only (rename it" in line
    assert not (tmp_path / "bundle").exists()
