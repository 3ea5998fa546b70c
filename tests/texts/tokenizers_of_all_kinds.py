"""Tokenizers of all families in small, and texts that are hard to cut, for tests of the encoder."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

__all__ = ["KINDS", "SAFE", "make", "random_text"]

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
MERGES = [("l", "i"), ("li", "g"), ("t", "h"), ("th", "e"), ("Ġ", "the"), ("o", "n"), ("Ġ", "on"), ("Ġ", "Ġ")]
PIECES = ["▁", "▁the", "▁on", "the", "on", "lig", "ht", "▁▁", "日", "日本", ",", ".", "é"]


def _wordpiece(*, chinese: bool = True, strip_accents: bool | None = None) -> Tokenizer:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *("##" + letter for letter in LETTERS), "the", "##ight", ","]
    names += list(".!?[]{}:\"'/_0123456789日本語é")
    made = Tokenizer(models.WordPiece({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(handle_chinese_chars=chinese, strip_accents=strip_accents)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def _byte_level(*, prefix: bool = False) -> Tokenizer:
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(first + second for first, second in MERGES)]
    made = Tokenizer(models.BPE({piece: n for n, piece in enumerate(dict.fromkeys(pieces))}, MERGES))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return made


def _unigram(pre_tokenizer: pre_tokenizers.PreTokenizer, runs: str = " ") -> Tokenizer:
    scores = [("<unk>", 0.0), *((letter, -4.0) for letter in LETTERS), *((piece, -3.0) for piece in PIECES)]
    made = Tokenizer(models.Unigram(scores, unk_id=0))
    made.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), runs)]
    )
    made.pre_tokenizer = pre_tokenizer
    return made


def _word_level() -> Tokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "light", "on", ",", "."]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def _albert() -> Tokenizer:
    made = _unigram(pre_tokenizers.Metaspace())
    quotes = [normalizers.Replace(quote, '"') for quote in ("``", "''")]
    forms = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]
    made.normalizer = normalizers.Sequence([*quotes, *forms, normalizers.Replace(Regex(" {2,}"), " ")])
    return made


def _with_blank_in_added_token() -> Tokenizer:
    made = _word_level()
    made.add_tokens([AddedToken("light on", normalized=False)])
    return made


def _with_greedy_added_tokens() -> Tokenizer:
    made = _byte_level()
    made.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<end>", rstrip=True)])
    made.add_tokens([AddedToken("light", single_word=True), AddedToken("    ", normalized=False)])
    return made


def _without_pre_tokenizer() -> Tokenizer:
    made = _unigram(pre_tokenizers.Metaspace())
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = None
    return made


def _own_pattern() -> Tokenizer:
    made = _byte_level()
    split = pre_tokenizers.Split(Regex(r"\w+ \w+|\S+|\s+"), "isolated")  # two words are one
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(use_regex=False)])
    return made


def _sentencepiece_words() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])


# Those with safe places, and those where none is known.
SAFE: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": _wordpiece,
    "wordpiece that keeps accents": lambda: _wordpiece(strip_accents=False),
    "wordpiece without Chinese": lambda: _wordpiece(chinese=False),
    "byte-level BPE": _byte_level,
    "byte-level BPE with a first blank": lambda: _byte_level(prefix=True),
    "unigram": lambda: _unigram(pre_tokenizers.Metaspace()),
    "unigram, runs of blanks": lambda: _unigram(pre_tokenizers.Metaspace(prepend_scheme="first"), "▁"),
    "unigram of words": lambda: _unigram(_sentencepiece_words()),
    "albert": _albert,
    "words": _word_level,
    "added tokens that eat blanks": _with_greedy_added_tokens,
}
UNSAFE: dict[str, Callable[[], Tokenizer]] = {
    "an added token with a blank": _with_blank_in_added_token,
    "no pre-tokenizer": _without_pre_tokenizer,
    "a pattern of its own": _own_pattern,
    "unigram over blanks": lambda: _unigram(pre_tokenizers.Metaspace(split=False)),
    "blanks that are gone before words are split": lambda: _unigram(pre_tokenizers.WhitespaceSplit(), "▁"),
}
KINDS = SAFE | UNSAFE


@cache
def make(kind: str) -> str:
    """Return the tokenizer.json of a kind, with special tokens around a text and a pair."""
    made = KINDS[kind]()
    made.add_special_tokens(["[CLS]", "[SEP]"])
    numbers = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=numbers
    )
    text: str = made.to_str()
    return text


WORDS = [
    "the",
    "light",
    "on",
    "THE",
    "Light",
    "éa",
    "e\u0301",
    "日本",
    "日本語",
    "ß",
    "İ",
    "don't",
    "a's",
    "ΑΣ",
    "x1y2",
]
MARKS = [",", ".", "!?", "'", "''", "``", "{", '":', "[", "]", "_", "/", "，", "。", "[SEP]", "<mask>", "<end>"]
BLANKS = [" ", " ", " ", " ", "  ", "     ", "\n", "\t", " \n ", "\r\n", "\u00a0", "\u3000", "\u2003", "\u0085", "\x1c"]
ODD = [
    *("\u0301", "\u0600", "\u200d", "\u200b", "\ufeff", "\ufffd", "\u115f", "\u3164", "\ufe70", "\ufdfa", "\u00b4"),
    *("\U0001f468\u200d\U0001f469", "\U0001f600", "\u0e01\u0e33", "\u0915\u094d\u0937", "\u1100\u1161", "▁", "\x01"),
]


def random_text(seed: int) -> str:
    """Return a text of words, marks, blanks and odd characters; some texts have hardly any blanks, or little else."""
    choose = random.Random(seed)
    weights = [choose.choice((1, 8)), choose.choice((0, 1, 4)), choose.choice((0, 1, 8)), choose.choice((0, 0, 1))]
    parts: list[str] = []
    for kind in choose.choices((WORDS, MARKS, BLANKS, ODD), weights, k=choose.choice((3, 100, 400, 1200))):
        part = choose.choice(kind)
        parts.append(part * choose.choice((1, 1, 1, 1, 1, 1, 2, 40)) if choose.random() < 0.1 else part)
    return "".join(parts) or "on"
