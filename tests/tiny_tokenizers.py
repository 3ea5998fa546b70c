"""Tokenizers of the three kinds in small, as transformers saves them, and texts of many scripts; no torch.

scripts/make_tiny_bundles.py writes BUNDLES/tokenizers/KIND (a directory) and BUNDLES/tokenizers/KIND.json (the ids of
TEXTS and PAIRS by transformers); tests in both environments read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = (
    "مرحبا بالعالم، كيف الحال؟",
    "كِتَابٌ جميل ﷺ ﻻ",  # vowel marks, and letters that NFKC changes
    "日本語の文章を、読みます。東京都",
    "が か\u3099 ｶﾞ ﾊﾟ",  # one syllable in four forms
    "good 👍🏽 family 👨\u200d👩\u200d👧 ok ☺\ufe0f",
    "caf\u00e9 cafe\u0301 e\u0308\u0323 na\u00efve \u1100\u1161 가",
    "  Straße\u00a0İstanbul\u3000ﬁn\u200bal\u00ad \U0001f1ef\U0001f1f5 ",
    "never seen: ქართული ខ្មែរ 𝔉𝔯𝔞𝔨𝔱𝔲𝔯",
)
SEEN = TEXTS[:-1]  # what the vocabularies were made from
PAIRS = tuple(zip(TEXTS, reversed(TEXTS), strict=True))


def _sentencepiece() -> Any:
    import transformers

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trained.train_from_iterator(SEEN, trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", show_progress=False))
    scores = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"] if piece != "<unk>"]
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    return transformers.XLMRobertaTokenizer(vocab=[*special, *scores, ("<mask>", 0.0)])


def _debertas_sentencepiece() -> Any:
    import transformers

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(SEEN, trainers.UnigramTrainer(vocab_size=200, unk_token="[UNK]", show_progress=False))
    scores = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"] if piece != "[UNK]"]
    special = [(token, 0.0) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]")]
    return transformers.DebertaV2Tokenizer(vocab=[*special, *scores, ("[MASK]", 0.0)], unk_id=3)


def _trained_bytes(special: list[str]) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        SEEN,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return trained


def _byte_level() -> Any:
    import transformers

    model = json.loads(_trained_bytes(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]).to_str())["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges)


def _modernberts_byte_level() -> Any:
    """A tokenizer.json of its own, as ModernBERT's: composed characters, and BERT's special tokens."""
    import transformers

    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    trained = _trained_bytes(special)
    trained.normalizer = normalizers.NFC()
    numbers = [(token, trained.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=numbers
    )
    names = [f"{token.strip('[]').lower()}_token" for token in special]
    return transformers.PreTrainedTokenizerFast(tokenizer_object=trained, **dict(zip(names, special, strict=True)))


def _wordpiece() -> Any:
    import transformers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer()
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trained.train_from_iterator(
        SEEN, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    return transformers.BertTokenizer(vocab=trained.get_vocab())


# By kind: the architecture that comes with it, and what makes transformers' tokenizer.
KINDS: dict[str, tuple[str, Callable[[], Any]]] = {
    "sentencepiece": ("xlm-roberta", _sentencepiece),
    "byte-level": ("roberta", _byte_level),
    "wordpiece": ("bert", _wordpiece),
    "modernberts-byte-level": ("modernbert", _modernberts_byte_level),
    "debertas-sentencepiece": ("deberta-v2", _debertas_sentencepiece),
}
# What else config.json must say.
KEYS: dict[str, dict[str, Any]] = {
    "modernbert": {"pad_token_id": 3},
    "deberta-v2": {
        "relative_attention": True,
        "position_biased_input": False,
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
    },
}


def save_tokenizers(directory: Path) -> None:
    """Save each kind's files and the ids that transformers gives with them."""
    import transformers

    for kind, (_, make) in KINDS.items():
        make().save_pretrained(directory / kind)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory / kind)
        ids = [tokenizer(text)["input_ids"] for text in TEXTS] + [tokenizer(*pair)["input_ids"] for pair in PAIRS]
        (directory / f"{kind}.json").write_text(json.dumps(ids))
