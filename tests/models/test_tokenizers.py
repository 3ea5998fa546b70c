"""The tokenizer.json of a bundle gives the ids of transformers, and only ids that the model has."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.errors import InputMissing, Unavailable
from tests.models.conftest import LABELS, SaveModel, refused

pytestmark = pytest.mark.host

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(90)), "W1", "W2"]


def settings(directory: Path, **values: Any) -> Path:
    """Write tokenizer_config.json."""
    (directory / "tokenizer_config.json").write_text(json.dumps(values))
    return directory


def edit(directory: Path, **values: Any) -> Path:
    """Change top-level fields of tokenizer.json."""
    path = directory / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values))
    return directory


def word_pieces(directory: Path, *, lowercase: bool) -> Path:
    """Save a tokenizer.json as BERT's, with words in small letters and two in capitals."""
    from transformers import BertTokenizer

    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    BertTokenizer(vocab=vocabulary, do_lower_case=lowercase).save_pretrained(directory)
    (directory / "tokenizer_config.json").unlink()
    return directory


def ids_of(directory: Path, text: str) -> tuple[list[int], list[int]]:
    """Return the ids of the tokenizer that a bundle would get, and those of transformers."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from edge_far.models.source import load_source

    source = load_source(str(directory), LABELS, 0)
    ours = Tokenizer.from_file(str(source.tokenizer)).encode(text).ids
    return ours, AutoTokenizer.from_pretrained(directory)(text)["input_ids"]


def test_none_at_all(model: SaveModel) -> None:
    directory = model()
    (directory / "tokenizer.json").unlink()
    refused(InputMissing, "no tokenizer here: tokenizer.json is missing", "save_pretrained", model=directory)
    (directory / "vocab.json").write_text("{}")
    refused(InputMissing, "half a tokenizer here: merges.txt is missing", model=directory)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("tokenizer.json", POINTER, "git lfs pull"),
        ("tokenizer.json", b"", "the file is empty"),
        ("tokenizer.json", b"{}", "not a tokenizer that the Rust package reads"),
        ("tokenizer.json", b"[]", "holds no JSON object"),
        ("vocab.txt", POINTER, "git lfs pull"),
        ("tokenizer_config.json", b"{", "broken JSON"),
        ("special_tokens_map.json", POINTER, "git lfs pull"),
        ("tokenizer_config.json", b'{"do_lower_case": [1]}', "do_lower_case is not true or false"),
        ("tokenizer_config.json", b'{"tokenizer_class": 5}', "tokenizer_class is not a text"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": 5}', "added_tokens_decoder is not an object"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, content: bytes, says: str, model: SaveModel) -> None:
    directory = model()
    (directory / name).write_bytes(content)
    assert refused(Unavailable, says, model=directory).where == str(directory / name)


@pytest.mark.parametrize("present", ["tokenizer.json", "vocab.txt"])
def test_a_class_that_needs_another_package(present: str, model: SaveModel) -> None:
    directory = settings(model(), tokenizer_class="BertJapaneseTokenizer", word_tokenizer_type="mecab")
    (directory / "tokenizer.json").rename(directory / "kept")
    (directory / "vocab.txt").write_text("\n".join(PIECES))
    if present == "tokenizer.json":
        (directory / "kept").rename(directory / present)
    error = refused(Unavailable, "tokenizer_class BertJapaneseTokenizer", "fugashi", model=directory)
    assert error.where == str(directory / "tokenizer_config.json")


@pytest.mark.parametrize("lowercase", [True, False])
def test_tokenizer_config_says_otherwise(lowercase: bool, model: SaveModel) -> None:
    from edge_far.models.source import load_source

    directory = word_pieces(model(), lowercase=lowercase)
    settings(directory, tokenizer_class="BertTokenizer", do_lower_case=not lowercase)
    ours, theirs = ids_of(directory, "W1 w2 W2")
    assert ours == theirs == ([2, 95, 7, 96, 3] if lowercase else [2, 6, 7, 7, 3])
    warnings = load_source(str(directory), LABELS, 0).warnings
    assert any("by tokenizer_config.json transformers reads it otherwise" in warning for warning in warnings)


def test_who_is_right_is_not_guessed(model: SaveModel) -> None:
    directory = word_pieces(model(), lowercase=False)  # and no tokenizer_config.json that says so
    refused(Unavailable, "transformers reads it otherwise", model=directory)
    settings(directory, tokenizer_class="BertTokenizer", do_lower_case=False)
    ours, theirs = ids_of(directory, "W1 w2 W2")
    assert ours == theirs == [2, 95, 7, 96, 3]


def test_no_cls(model: SaveModel) -> None:
    directory = edit(model(), post_processor=None)
    refused(Unavailable, "transformers reads it otherwise", model=directory)
    settings(directory, tokenizer_class="BertTokenizer")
    ours, theirs = ids_of(directory, "w1")
    assert ours == theirs == [2, 6, 3]


def test_a_class_that_transformers_only_guesses(model: SaveModel) -> None:
    """A word-level tokenizer.json alone: for RoBERTa transformers would make a BPE of it, which knows no word."""
    from edge_far.models.source import load_source

    directory = model("roberta", id2label=dict(enumerate(LABELS)))
    source = load_source(str(directory), LABELS, 0)
    assert source.tokenizer == directory / "tokenizer.json"
    (warning,) = source.warnings
    assert "is taken as it is" in warning
    refused(Unavailable, "transformers reads it otherwise", model=edit(directory, post_processor=None))


def test_a_vocabulary_is_converted_and_leaves_nothing_behind(model: SaveModel) -> None:
    from edge_far.models.source import load_source

    directory = model(id2label=dict(enumerate(LABELS)))
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.txt").write_text("\n".join(PIECES))
    source = load_source(str(directory), LABELS, 0)
    made = source.tokenizer
    assert made.is_file() and source.warnings == ()
    ours, theirs = ids_of(directory, "w1 W2")
    assert ours == theirs == [2, 6, 7, 3]
    del source
    gc.collect()
    assert not made.parent.exists()


def test_ids_beyond_the_table(model: SaveModel) -> None:
    from tokenizers import Tokenizer

    path = model() / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_special_tokens(["<ent>"])
    tokenizer.save(str(path))
    refused(Unavailable, "'<ent>' has the id 100, and the model's table has 100 rows", model=path.parent)


def test_a_vocabulary_without_the_unknown_token(model: SaveModel) -> None:
    directory = settings(model("roberta"), tokenizer_class="BertTokenizer")  # which asks for [UNK]
    refused(Unavailable, "cannot encode a text", model=directory)


def test_roberta_whose_padding_is_not_the_tokenizer_s(model: SaveModel) -> None:
    from edge_far.models.source import load_source

    directory = model("roberta", pad_token_id=3)
    warnings = load_source(str(directory), LABELS, 0).warnings
    assert any("pad_token_id is 3, and the tokenizer pads with 1" in warning for warning in warnings)


def test_share_of_unknown_tokens() -> None:
    from edge_far.models.tokenizers import unknown_share
    from edge_far.texts.encode import Encoded
    from tests.tiny_models import make_tokenizer

    tokenizer = make_tokenizer("bert")

    def encoded(*ids: int) -> Encoded:
        return Encoded(np.array(ids, np.int32), np.array([0, len(ids)]), None, np.array([0]), 0, 0, 16)

    assert unknown_share(tokenizer, encoded(2, 1, 9, 9, 1, 3)) == 0.5
    assert unknown_share(tokenizer, encoded(2, 9, 3)) == 0.0
    assert unknown_share(tokenizer, encoded(2, 3)) == 0.0
