"""Seeded typing errors: a neighbouring key, two letters swapped, one letter dropped.

One word of at least five letters changes, never its first letter, and never into a word the data set uses, so
that a reader still sees what was meant.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection

__all__ = ["add_typo"]

MIN_LETTERS = 5
TYPO_ATTEMPTS = 8
NEIGHBOURS = {
    "a": "qsz", "b": "vgn", "c": "xdv", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gju",
    "i": "uok", "j": "hkn", "k": "jli", "l": "kop", "m": "nj", "n": "bmh", "o": "ipl", "p": "ol",
    "q": "wa", "r": "etf", "s": "adw", "t": "ryg", "u": "yij", "v": "cbf", "w": "qes", "x": "zcs",
    "y": "tuh", "z": "xas",
}  # fmt: skip
_WORD = re.compile(rf"[a-z]{{{MIN_LETTERS},}}")


def add_typo(sentence: str, vocabulary: Collection[str], rng: random.Random) -> str:
    """Return the sentence with one typing error, or as it was where no word allows one."""
    words = list(_WORD.finditer(sentence))
    for _ in range(TYPO_ATTEMPTS if words else 0):
        word = rng.choice(words)
        wrong = _misspell(word[0], rng)
        if wrong != word[0] and wrong not in vocabulary:
            return sentence[: word.start()] + wrong + sentence[word.end() :]
    return sentence


def _misspell(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("neighbour", "swap", "drop"))
    if kind == "neighbour":
        return word[:place] + rng.choice(NEIGHBOURS[word[place]]) + word[place + 1 :]
    if kind == "swap":
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + word[place + 1 :]
