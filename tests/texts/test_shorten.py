"""Shortened examples have the ids of whole ones: every kind of tokenizer, hard texts, pairs; truncation by its rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from edge_far.texts.data import Example
from edge_far.texts.encode import Encoder
from edge_far.texts.shorten import CHARACTERS, CHARACTERS_OF_PAIR, SPARE_TOKENS, Shortener
from tests.texts.tokenizers_of_all_kinds import KINDS, make, random_text


def expected(tokenizer: Tokenizer, example: Example, room: int) -> tuple[list[int], bool]:
    """Return the ids of an example, every text encoded whole and then cut, and whether anything was cut off."""
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    one = tokenizer.encode(example.text, add_special_tokens=False).ids
    if example.text_pair is None:
        return [first, *one[: room - 2], last], len(one) > room - 2
    two = tokenizer.encode(example.text_pair, add_special_tokens=False).ids
    left, right = len(one), len(two)
    half, over = (room - 3) // 2, left + right > room - 3
    if over and left <= half:
        right = room - 3 - left
    elif over and right <= half:
        left = room - 3 - right
    elif over:
        left, right = (room - 3 - half, half) if left > right else (half, room - 3 - half)
    return [first, *one[:left], last, *two[:right], last], over


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_whole_text(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(make(kind))
    whole, shortened = Tokenizer.from_file(str(path)), 0
    for room in (8, 31):  # the room of a pair is odd, then even
        encoder = Encoder(path, room)
        own = Tokenizer.from_file(str(path))
        own.enable_truncation(room)
        examples = [Example(random_text(n), random_text(-n) if n % 2 else None) for n in range(room, room + 16)]
        encoded = encoder.encode(examples, None)
        truncated = 0
        for example, ids in zip(examples, encoded.ids, strict=True):
            right, over = expected(whole, example, room)
            assert ids.tolist() == right, example
            if len(example.text) + len(example.text_pair or "") < 300:  # the rule above is the package's
                assert own.encode(example.text, example.text_pair).ids == right
            truncated += over
            shortened += encoder._shortener.shorten(example) != example
        assert encoded.truncated == truncated
    assert shortened > 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["the light on ", '{"a":1},', "日本語。", "ab", "!.", "\U0001f600"])
def test_what_is_left_is_short(kind: str, text: str) -> None:
    tokenizer = Tokenizer.from_str(make(kind))
    room = 16
    tokenizer.enable_truncation(room)
    shortener, enough = Shortener(tokenizer, room), room + SPARE_TOKENS
    long = text * (20_000 // len(text))
    alone = shortener.shorten(Example(long))
    pair = shortener.shorten(Example(long, long + text))
    tokenizer.no_truncation()
    for example, most in ((alone, CHARACTERS), (pair, CHARACTERS_OF_PAIR)):
        for left in filter(None, (example.text, example.text_pair)):
            tokens = len(tokenizer.encode(left, add_special_tokens=False))
            few = tokens < enough and len(left) >= len(long)  # an unknown word of any length is one token
            assert few or enough <= tokens <= 4 * (most + 4) * enough


def test_short_examples_are_left_alone_and_the_tokenizer_is_as_before() -> None:
    tokenizer = Tokenizer.from_str(make("words"))
    tokenizer.enable_truncation(16, strategy="longest_first", direction="right")
    before = tokenizer.truncation
    shortener = Shortener(tokenizer, 16)
    short = Example("on " * 20, "the")
    assert shortener.shorten(short) is short
    assert len(shortener.shorten(Example("on " * 2000, "the", "label")).text) < 1000
    assert tokenizer.truncation == before
    assert shortener.shorten(Example("on " * 2000, "the", "label")).label == "label"


@pytest.mark.parametrize(
    ("left", "right"), [(4000, 4001), (4001, 4000), (4000, 4000), (3000, 9), (9, 3000), (20, 4000)]
)
def test_the_longer_of_a_pair_keeps_the_odd_token(left: int, right: int) -> None:
    tokenizer = Tokenizer.from_str(make("words"))
    shortener = Shortener(tokenizer, 16)
    example = Example("on " * left, "the " * right)
    found = shortener.shorten(example)
    assert expected(tokenizer, found, 16) == expected(tokenizer, example, 16)
    assert len(found.text) + len(found.text_pair or "") < 600
