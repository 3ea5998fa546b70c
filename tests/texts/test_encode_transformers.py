"""Encoding against transformers with the same tokenizer.json, truncation and pairs included."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder

pytestmark = pytest.mark.host

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *LETTERS,
    *("##" + letter for letter in LETTERS),
    "turn",
    "##ing",
    ",",
]
TEXTS = ["Turning, on", "a", "Größe", "x " * 40, "turn turning turned", "日本 light", "  ,, "]


@pytest.mark.parametrize("max_seq_len", [6, 13, 64])
def test_same_ids(tmp_path: Path, max_seq_len: int) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    special = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    oracle = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="[PAD]")
    examples = [Example(text) for text in TEXTS] + [Example(a, b) for a in TEXTS for b in TEXTS]
    encoded = Encoder(tmp_path / "tokenizer.json", max_seq_len).encode(examples, None)
    assert encoded.type_ids is not None
    truncated = 0
    for index, example in enumerate(examples):
        expected = oracle(
            example.text,
            example.text_pair,
            truncation=True,
            max_length=max_seq_len,
            return_token_type_ids=True,
        )
        assert encoded.ids[index].tolist() == expected["input_ids"]
        part = slice(encoded.starts[index], encoded.starts[index + 1])
        assert encoded.type_ids[part].tolist() == expected["token_type_ids"]
        truncated += len(oracle(example.text, example.text_pair)["input_ids"]) > max_seq_len
    assert encoded.truncated == truncated
