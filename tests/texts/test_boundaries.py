"""Safe places, against the tokenizers themselves: before one the tokens are those of the whole text."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from edge_far.texts.boundaries import Boundaries
from tests.texts.tokenizers_of_all_kinds import SAFE, UNSAFE, make, random_text


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def places(boundaries: Boundaries, text: str) -> list[int]:
    found: list[int] = []
    while (place := boundaries.after(text, found[-1] + 1 if found else 1)) is not None:
        found.append(place)
    return found


@pytest.mark.parametrize("kind", SAFE)
def test_before_every_safe_place_the_tokens_are_those_of_the_whole(kind: str) -> None:
    tokenizer = Tokenizer.from_str(make(kind))
    boundaries = Boundaries.of(tokenizer)
    assert boundaries is not None
    seen = 0
    for seed in range(40):
        text = random_text(seed)[:1500]
        whole = ids(tokenizer, text)
        found = places(boundaries, text)
        for place in found[:: 1 + len(found) // 10]:
            before = ids(tokenizer, text[:place])
            assert whole[: len(before)] == before, (text[max(0, place - 20) : place], text[place : place + 20])
            seen += 1
    assert seen > 100


@pytest.mark.parametrize("kind", SAFE)
def test_pieces_have_together_the_tokens_of_the_whole(kind: str) -> None:
    tokenizer = Tokenizer.from_str(make(kind))
    boundaries = Boundaries.of(tokenizer)
    assert boundaries is not None
    cut = 0
    for seed in range(40):
        text = random_text(seed)
        pieces = list(boundaries.pieces(text, 50))
        assert "".join(pieces) == text
        assert [token for piece in pieces for token in ids(tokenizer, piece)] == ids(tokenizer, text)
        cut += len(pieces) - 1
    assert cut > 100 or boundaries.restarts is None


@pytest.mark.parametrize("kind", UNSAFE)
def test_no_place_is_safe_where_the_parts_are_not_known(kind: str) -> None:
    assert Boundaries.of(Tokenizer.from_str(make(kind))) is None


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("wordpiece", "the light", [3]),
        ("wordpiece", "the  light\non", [3, 10]),
        ("wordpiece", '{"a":1}', [1, 2, 3, 4, 5, 6]),
        ("wordpiece", "a[SEP]b", [1, 6]),  # nowhere inside the name of a special token
        ("wordpiece", "日本の", [1, 2]),
        ("wordpiece without Chinese", "日本，の", [2]),
        ("byte-level BPE", '{"ab":12}', [4, 8]),
        ("byte-level BPE", "日本語。the", [3]),
        ("unigram", "日本, the\non", [3]),
        ("words", "a_b a'b", [3, 5]),
        ("words", "a\u0301 b\u0600 c", []),  # an accent; a sign that forms one character with the blank
        ("words", "\ufe70 a \u3164 b", [3]),  # letters that become blanks, or nothing
        ("words", " a", []),
        ("words", "a ", [1]),
        ("words", "a", []),
        ("words", "", []),
    ],
)
def test_places(kind: str, text: str, expected: list[int]) -> None:
    boundaries = Boundaries.of(Tokenizer.from_str(make(kind)))
    assert boundaries is not None and places(boundaries, text) == expected


def test_parts_that_hide_a_blank_or_are_not_known() -> None:
    def known(normalizer: object = None, words: object = None, added: AddedToken | None = None) -> bool:
        tokenizer = Tokenizer.from_str(make("words"))
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        if words is not None:
            tokenizer.pre_tokenizer = words
        tokenizer.add_tokens([added] if added else [])
        return Boundaries.of(tokenizer) is not None

    level, blanks = pre_tokenizers.ByteLevel, pre_tokenizers.Whitespace
    assert known() and known(words=pre_tokenizers.Sequence([pre_tokenizers.Digits(), blanks()]))
    assert not known(words=pre_tokenizers.Sequence([level(use_regex=False), blanks()]))
    assert not known(words=level(use_regex=False)) and not known(words=pre_tokenizers.Sequence([]))
    assert not known(words=pre_tokenizers.Split(" ", "merged_with_previous"))
    assert not known(normalizer=normalizers.Replace("on the", "x")) and not known(normalizer=normalizers.Prepend("x"))
    assert not known(normalizer=normalizers.Sequence([normalizers.NFC(), normalizers.Replace(" ", "")]))
    assert known(added=AddedToken(" on")) and not known(added=AddedToken("on\u00a0the"))
