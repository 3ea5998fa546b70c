"""Cuts a long text before the tokenizer sees it, where none of what is cut off can become a token of the model.

The tokenizer encodes a text as a whole and then sets aside what is over: some 300 bytes of memory for each byte of
it, and of a pair every combination of what is over on both sides. So a text is cut at a safe place (boundaries.py)
behind more tokens than fit; the ids stay those of the whole text. Where no place is known to be safe, the text is
encoded once by itself, and cut where the ids are seen to be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tokenizers import Encoding, Tokenizer

from edge_far.texts.boundaries import Boundaries
from edge_far.texts.data import Example
from edge_far.texts.tokenizer_file import tokenize

__all__ = ["Shortener"]

SPARE_TOKENS = 8
# First guesses of a token's characters. What is over on one side of a pair meets all that is over on the other.
CHARACTERS, CHARACTERS_OF_PAIR = 8, 2
MANY = 4
PIECE_CHARACTERS = 1 << 14


@dataclass(frozen=True)
class _Beginning:
    """The beginning of a text, or all of it, and how many tokens it has by itself."""

    text: str
    tokens: int
    whole: bool


class Shortener:
    """Shortens the examples of one tokenizer, which truncates to `max_seq_len` tokens, the longer of a pair first."""

    def __init__(self, tokenizer: Tokenizer, max_seq_len: int) -> None:
        self._tokenizer = tokenizer
        self._boundaries = Boundaries.of(tokenizer)
        self._max_seq_len = max_seq_len
        self._enough = max_seq_len + SPARE_TOKENS
        self._room_of_pair = max_seq_len - tokenizer.num_special_tokens_to_add(True)

    def shorten(self, example: Example) -> Example:
        """Return an example with the same token ids, whose texts are not much longer than these need."""
        text, pair = example.text, example.text_pair
        guess = CHARACTERS if pair is None else CHARACTERS_OF_PAIR
        if max(len(text), len(pair or "")) <= 2 * guess * self._enough:
            return example
        with self._untruncated():
            first = self._beginning(text, self._enough, guess)
            if pair is None:
                return replace(example, text=first.text)
            second = self._beginning(pair, self._enough, guess)
            if not first.whole or not second.whole:
                first, second = self._in_order(text, first, pair, second)
        return replace(example, text=first.text, text_pair=second.text)

    def _in_order(self, text: str, first: _Beginning, pair: str, second: _Beginning) -> tuple[_Beginning, _Beginning]:
        """Return beginnings of which that one has more tokens whose whole has more: it is given the odd token."""
        if min(first.tokens, second.tokens) <= self._room_of_pair or self._room_of_pair % 2 == 0:
            return first, second
        if self._tokens_of(text, first) > self._tokens_of(pair, second):
            if first.tokens <= second.tokens:
                first = self._beginning(text, second.tokens + 1, CHARACTERS_OF_PAIR)
        elif first.tokens > second.tokens:
            second = self._beginning(pair, first.tokens, CHARACTERS_OF_PAIR)
        return first, second

    def _beginning(self, text: str, enough: int, guess: int) -> _Beginning:
        """Return a beginning of at least `enough` tokens with the ids of the whole, or the whole text."""
        characters = guess * enough
        while self._boundaries is not None and (place := self._boundaries.after(text, characters)) is not None:
            tokens = len(self._encoded(text[:place]))
            if tokens > MANY * guess * enough:
                return self._compared(text[:place], enough, guess, whole=False)
            if tokens >= enough:
                return _Beginning(text[:place], tokens, whole=False)
            characters = 2 * place
        return self._compared(text, enough, guess, whole=True)

    def _compared(self, text: str, enough: int, guess: int, *, whole: bool) -> _Beginning:
        """Return the first beginning whose ids are seen to be those of the text, as far as any can be used."""
        encoding = self._encoded(text)
        tokens, used = len(encoding), encoding.ids[: self._max_seq_len]
        del encoding
        characters = guess * enough if tokens > enough else len(text)
        while characters < len(text):
            ids = self._encoded(text[:characters]).ids
            if len(ids) >= enough and ids[: self._max_seq_len] == used:
                return _Beginning(text[:characters], len(ids), whole=False)
            characters *= 2
        return _Beginning(text, tokens, whole)

    def _tokens_of(self, text: str, beginning: _Beginning) -> int:
        """Return how many tokens the whole text has."""
        if beginning.whole:
            return beginning.tokens
        pieces = self._boundaries.pieces(text, PIECE_CHARACTERS) if self._boundaries else [text]
        return sum(len(self._encoded(piece)) for piece in pieces)

    def _encoded(self, text: str) -> Encoding:
        (encoding,) = tokenize(self._tokenizer, [text], special_tokens=False)
        return encoding

    @contextmanager
    def _untruncated(self) -> Iterator[None]:
        """Let the tokenizer give every token of a text, so that they can be counted."""
        settings = self._tokenizer.truncation
        self._tokenizer.no_truncation()
        try:
            yield
        finally:
            if settings is not None:
                self._tokenizer.enable_truncation(**settings)
