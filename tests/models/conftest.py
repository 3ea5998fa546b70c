"""Saved tiny models to spoil, one copy a test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_far.errors import EdgeFarError

SaveModel = Callable[..., Path]
LABELS = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that saves a tiny model of an architecture with its tokenizer.json, once; do not change it."""
    from tests.tiny_models import make_original, make_tokenizer

    root = tmp_path_factory.mktemp("models")

    def save(architecture: str) -> Path:
        directory = root / architecture
        if not directory.exists():
            make_original(architecture).save_pretrained(directory)
            make_tokenizer(architecture).save(str(directory / "tokenizer.json"))
        return directory

    return save


@pytest.fixture
def model(saved_models: Callable[[str], Path], tmp_path: Path) -> SaveModel:
    """Return a function that copies a saved model to a directory of the test's own; keywords go into config.json."""

    def copy(architecture: str = "bert", **config: Any) -> Path:
        directory = tmp_path / f"my-{architecture}"
        if not directory.exists():
            shutil.copytree(saved_models(architecture), directory)
        document = json.loads((directory / "config.json").read_bytes()) | config
        (directory / "config.json").write_text(json.dumps(document))
        return directory

    return copy


def refused(error: type[EdgeFarError], *says: str, model: Path, dropout: bool = False) -> EdgeFarError:
    """Assert that loading ends with `error`, in one line that says what, where and what to do; return it."""
    from edge_far.models.source import load_source

    with pytest.raises(error) as caught:
        load_source(str(model), LABELS, 0, dropout=dropout)
    assert type(caught.value) is error
    line = str(caught.value)
    assert "\n" not in line and len(line) < 700 and caught.value.hint and caught.value.where
    for part in says:
        assert part in line, line
    return caught.value
