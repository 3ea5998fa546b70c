"""Encoding with a small tokenizer whose ids can be told by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel, WordPiece
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from edge_far.errors import BundleError, ConfigError, DataError, InputMissing
from edge_far.texts.data import Example
from edge_far.texts.encode import EXAMPLES_AT_ONCE, Encoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "turn", "the", "light", "on", "off"]


@pytest.fixture
def tokenizer_json(tmp_path: Path) -> Path:
    """A tokenizer file whose own padding (to 50) and truncation (to 4) must be ignored."""
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.enable_padding(length=50, pad_id=0)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def test_ids_types_labels_and_lengths(tokenizer_json: Path) -> None:
    examples = [
        Example("turn the light on", None, "b"),
        Example("light", "off now", "a"),
        Example("on", None, None),
    ]
    encoded = Encoder(tokenizer_json, 16).encode(examples, ["a", "b"])
    assert [ids.tolist() for ids in encoded.ids] == [[2, 4, 5, 6, 7, 3], [2, 6, 3, 8, 1, 3], [2, 7, 3]]
    assert encoded.tokens.dtype == np.int32
    assert encoded.type_ids is not None
    assert encoded.type_ids.tolist() == [0] * 6 + [0, 0, 0, 1, 1, 1] + [0] * 3
    assert encoded.labels.tolist() == [1, 0, -1]
    assert encoded.labels.dtype == np.int64
    assert encoded.lengths.tolist() == [6, 6, 3]
    assert (len(encoded), encoded.truncated, encoded.pad_id) == (3, 0, 0)


def test_truncation_keeps_special_tokens_and_is_counted(tokenizer_json: Path) -> None:
    examples = [
        Example("turn the light on on on"),
        Example("turn the light"),
        Example("on on on on", "off off"),
    ]
    encoded = Encoder(tokenizer_json, 5).encode(examples, None)
    assert [ids.tolist() for ids in encoded.ids][:2] == [[2, 4, 5, 6, 3], [2, 4, 5, 6, 3]]
    assert encoded.ids[2].tolist() == [2, 7, 3, 8, 3]  # the longer text of a pair loses first
    assert encoded.truncated == 2
    assert encoded.labels.tolist() == [-1, -1, -1]


def test_models_without_segments(tokenizer_json: Path) -> None:
    assert Encoder(tokenizer_json, 16, token_types=False).encode([Example("on", "off")], None).type_ids is None


def test_many_examples_and_none(tokenizer_json: Path) -> None:
    texts = ["on " * (1 + number % 7) for number in range(2 * EXAMPLES_AT_ONCE + 3)]
    encoded = Encoder(tokenizer_json, 16).encode([Example(text) for text in texts], None)
    assert encoded.lengths.tolist() == [3 + number % 7 for number in range(len(texts))]
    nothing = Encoder(tokenizer_json, 16).encode([], ["a"])
    assert (len(nothing), nothing.tokens.size, nothing.lengths.size) == (0, 0, 0)


def test_pad_id_without_padding_settings(tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({"<s>": 0, "<pad>": 1, "a": 2}, unk_token="a"))
    tokenizer.save(str(tmp_path / "t.json"))
    encoder = Encoder(tmp_path / "t.json", 8)
    assert encoder.pad_id == 1
    with pytest.raises(DataError, match="the text of example 2 gives no token"):
        encoder.encode([Example("a"), Example("")], None)


def test_errors(tokenizer_json: Path, tmp_path: Path) -> None:
    with pytest.raises(InputMissing, match="tokenizer file does not exist"):
        Encoder(tmp_path / "none.json", 16)
    broken = tmp_path / "broken.json"
    for content in (b"", b"{}", b"\xff", tokenizer_json.read_bytes()[:-20]):
        broken.write_bytes(content)
        with pytest.raises(BundleError, match="not a tokenizer") as caught:
            Encoder(broken, 16)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="max_seq_len 4 leaves no room"):
        Encoder(tokenizer_json, 4)
    with pytest.raises(DataError, match="unknown label 'c'"):
        Encoder(tokenizer_json, 16).encode([Example("on", None, "c")], ["a"])


def test_texts_that_the_model_cannot_read(tokenizer_json: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.add_special_tokens(["<ent>"])
    tokenizer.save(str(tmp_path / "t.json"))
    encoder = Encoder(tmp_path / "t.json", 16, vocabulary=len(WORDS))
    readable = [Example("on", "the light", "a"), Example("turn off", None, "b"), Example("light", None, "a")]
    texts = [readable[0], Example("turn <ent> on", None, "b"), *readable[1:], Example("<ent> <ent>", None, "b")]
    says = rf"the text of example 2 has the token '<ent>' \(id 9\), and the model knows {len(WORDS)} tokens"
    with pytest.raises(DataError, match=says) as caught:
        encoder.encode(texts, ["a", "b"])
    assert caught.value.exit_code == 65 and caught.value.hint
    left_out: dict[int, str] = {}
    found, expected = encoder.encode(texts, ["a", "b"], left_out), encoder.encode(readable, ["a", "b"])
    assert list(left_out) == [1, 4]
    for name in ("tokens", "starts", "type_ids", "labels"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert len(encoder.encode([texts[1]], None, {})) == 0
    assert len(Encoder(tmp_path / "t.json", 16).encode(texts, ["a", "b"])) == 5  # a caller that cannot know


@pytest.mark.parametrize("vocabulary", [None, 9])
@pytest.mark.parametrize("number", [2**31, 2**32 - 1])
def test_ids_beyond_32_bits_are_told_like_others(
    number: int, vocabulary: int | None, tokenizer_json: Path, tmp_path: Path
) -> None:
    document = json.loads(tokenizer_json.read_bytes())
    document["model"]["vocab"]["light"] = number
    (tmp_path / "t.json").write_text(json.dumps(document))
    encoder = Encoder(tmp_path / "t.json", 16, vocabulary=vocabulary)
    known = vocabulary or 2**31
    with pytest.raises(DataError, match=rf"example 2 has the token 'light' \(id {number}\), and .* {known} tokens"):
        encoder.encode([Example("on"), Example("light on")], None)
    left_out: dict[int, str] = {}
    assert len(encoder.encode([Example("on"), Example("light on")], None, left_out)) == 1 and list(left_out) == [1]


@pytest.mark.parametrize("segment", [128, 2**32 - 1])
def test_segments_beyond_8_bits_are_the_last_that_fits(segment: int, tokenizer_json: Path, tmp_path: Path) -> None:
    """No model knows so many: export names them, and a graph refuses them."""
    document = json.loads(tokenizer_json.read_bytes())
    document["post_processor"]["single"][1]["Sequence"]["type_id"] = segment
    (tmp_path / "t.json").write_text(json.dumps(document))
    encoded = Encoder(tmp_path / "t.json", 16).encode([Example("on")], None)
    assert encoded.type_ids is not None and encoded.type_ids.tolist() == [0, 127, 0]


def test_padding_that_the_model_does_not_have(tokenizer_json: Path) -> None:
    with pytest.raises(BundleError, match="pads with the id 0, and the model knows 0"):
        Encoder(tokenizer_json, 16, vocabulary=0)


def test_a_tokenizer_that_fails_on_a_text(tokenizer_json: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordPiece({"[PAD]": 0, "a": 1}, unk_token="[UNK]"))  # there is no [UNK]
    tokenizer.save(str(tmp_path / "t.json"))
    with pytest.raises(BundleError, match="cannot encode a text: WordPiece error: Missing"):
        Encoder(tmp_path / "t.json", 16).encode([Example("b")], None)
