"""What a bundle carries for transformers: its config and its tokenizer, as transformers reads them again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import transformers

from edge_far.compile.emit.source_files import write_source_files
from edge_far.models.source import SourceModel
from tests.tiny_models import MAX_POSITIONS, make_pooled, make_tokenizer, tiny_task
from tests.tiny_tokenizers import KINDS, PAIRS, TEXTS

pytestmark = pytest.mark.host


def written(out: Path, architecture: str, tokenizer: Path, directory: Path | None = None, **model: Any) -> Path:
    """Write the files of a tiny model with a tokenizer, and the tokenizer beside them."""
    pooled = make_pooled(architecture, model.get("pooling", "cls"))
    source = SourceModel(pooled, architecture, "tiny", tokenizer, MAX_POSITIONS, directory=directory)
    write_source_files(out, source, tiny_task("classify", 5), 48)
    shutil.copyfile(tokenizer, out / "tokenizer.json")
    return out


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_ids_that_it_read_of_the_model(kind: str, test_bundles: Path, tmp_path: Path) -> None:
    directory = test_bundles / "tokenizers" / kind
    out = written(tmp_path / "out", KINDS[kind][0], directory / "tokenizer.json", directory)
    theirs, ours = (transformers.AutoTokenizer.from_pretrained(path) for path in (directory, out))
    found = [ours(text)["input_ids"] for text in TEXTS] + [ours(*pair)["input_ids"] for pair in PAIRS]
    assert found == read(directory.with_suffix(".json"))
    for name in ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"):
        assert isinstance(getattr(ours, name), str) and getattr(ours, name) == getattr(theirs, name)
    assert ours.model_max_length == 48
    assert ("token_type_ids" in ours("a")) == (kind == "wordpiece")


def test_without_settings_the_special_tokens_are_the_usual_ones(tmp_path: Path) -> None:
    for architecture, expected in (("bert", ["[PAD]", "[CLS]", "[SEP]"]), ("roberta", ["<pad>", "<s>", "</s>"])):
        tokenizer = tmp_path / f"{architecture}.json"
        make_tokenizer(architecture).save(str(tokenizer))
        settings = read(written(tmp_path / architecture, architecture, tokenizer) / "tokenizer_config.json")
        assert [settings[f"{name}_token"] for name in ("pad", "cls", "sep")] == expected
        assert "bos_token" not in settings


def test_nobodys_code_and_no_path_of_this_machine_goes_along(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    make_tokenizer("bert").save(str(tokenizer))
    settings = {
        "tokenizer_class": "MyTokenizer",
        "auto_map": {"AutoTokenizer": ["my.MyTokenizer", None]},
        "name_or_path": str(tmp_path),
        "cls_token": {"content": "[CLS]", "special": True},
        "sep_token": "not in the vocabulary",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    out = written(tmp_path / "out", "bert", tokenizer, tmp_path, pooling="mean")
    found = read(out / "tokenizer_config.json")
    assert found["tokenizer_class"] == "PreTrainedTokenizerFast" and "auto_map" not in found
    assert (found["cls_token"], found["sep_token"]) == ("[CLS]", "[SEP]")
    config = read(out / "config.json")
    assert config["architectures"] == ["BertModel"]
    assert not {"_name_or_path", "auto_map", "_attn_implementation", "dtype"} & set(config)
    assert str(tmp_path) not in json.dumps([found, config])
