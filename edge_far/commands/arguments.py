"""Arguments that are texts, not paths: UTF-8 whatever the locale says. Imports nothing but the shared floor."""

from __future__ import annotations

import os

from edge_far.errors import DataError

__all__ = ["text_argument"]


def text_argument(word: str) -> str:
    """Return a text of the command line; DataError (65) where its bytes are not UTF-8.

    Under an ASCII locale Python makes half a surrogate pair of each byte beyond ASCII.
    """
    if not any("\ud800" <= letter <= "\udfff" for letter in word):
        return word
    try:
        return os.fsencode(word).decode()
    except UnicodeError as error:
        raise DataError("a text is not UTF-8", where="TEXT", hint="check the terminal's encoding") from error
