"""Tokenizers of the three kinds in small, as transformers saves them, and texts of many scripts; no torch.

scripts/make_tiny_bundles.py writes BUNDLES/tokenizers/KIND (a directory) and BUNDLES/tokenizers/KIND.json (the ids of
TEXTS and PAIRS by transformers); tests in both environments read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

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


def _byte_level() -> Any:
    import transformers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        SEEN,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    return transformers.RobertaTokenizer(vocab=model["vocab"], merges=merges)


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
}


def save_tokenizers(directory: Path) -> None:
    """Save each kind's files and the ids that transformers gives with them."""
    import transformers

    for kind, (_, make) in KINDS.items():
        make().save_pretrained(directory / kind)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory / kind)
        ids = [tokenizer(text)["input_ids"] for text in TEXTS] + [tokenizer(*pair)["input_ids"] for pair in PAIRS]
        (directory / f"{kind}.json").write_text(json.dumps(ids))
