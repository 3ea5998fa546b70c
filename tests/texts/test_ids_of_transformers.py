"""Texts of many scripts get the ids of transformers, on the workstation and on the device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder
from tests.tiny_tokenizers import KEYS, KINDS, PAIRS, TEXTS


@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_transformers(kind: str, test_bundles: Path) -> None:
    folder = test_bundles / "tokenizers"
    examples = [*(Example(text) for text in TEXTS), *(Example(*pair) for pair in PAIRS)]
    encoded = Encoder(folder / kind / "tokenizer.json", 256).encode(examples, None)
    assert [ids.tolist() for ids in encoded.ids] == json.loads((folder / f"{kind}.json").read_text())


@pytest.mark.host
@pytest.mark.parametrize("kind", KINDS)
def test_export_takes_the_saved_file(kind: str, test_bundles: Path, tmp_path: Path) -> None:
    """Beside a model of its architecture nothing is converted, and nothing is warned of."""
    import shutil

    from edge_far.models.config import read_config
    from edge_far.models.tokenizers import choose_tokenizer

    directory = tmp_path / "model"
    shutil.copytree(test_bundles / "tokenizers" / kind, directory)
    name = KINDS[kind][0]
    config = {"model_type": name, "vocab_size": 400, **KEYS.get(name, {})}
    (directory / "config.json").write_text(json.dumps(config))
    chosen = choose_tokenizer(read_config(directory, dropout=True), [Example(text) for text in TEXTS])
    assert (chosen.path, chosen.warnings) == (directory / "tokenizer.json", ())
