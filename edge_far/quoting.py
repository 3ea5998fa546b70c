"""How data is shown to people: quoted where it could be misread, and never able to steer a terminal.

A text, a label or a path may hold line breaks, escape sequences and characters that turn the direction of writing.
Shown raw they make two lines of one, or write over what stands above. Standard library only.
"""

from __future__ import annotations

import shlex
import unicodedata

__all__ = ["harmless", "one_line", "quoted", "shell_word", "shown"]

MAX_QUOTED = 60
# Controls, formatting characters, halves of surrogate pairs, separators of lines and of paragraphs.
_STEERING = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# Two of them join letters and emoji; writing systems need them.
_JOINERS = frozenset("\u200c\u200d")
_QUOTES = ("'", '"')


def shown(text: str) -> str:
    """Return a text as it is where that is harmless and clear, else as `quoted` has it, in full length.

    Quoted are also a text with blanks at an end, an empty one, and one that begins like a quoted one.
    """
    clear = text == text.strip() != "" and not text.startswith(_QUOTES) and not any(map(_steers, text))
    return text if clear else quoted(text, limit=None)


def quoted(text: str, *, limit: int | None = MAX_QUOTED) -> str:
    """Return a text in quotes, on one line, cut to `limit` characters (None: whole)."""
    return repr(text if limit is None or len(text) <= limit else text[: limit - 3] + "...")


def one_line(text: str) -> str:
    r"""Return a text, such as a path, with each character that could steer a terminal written as \n, \x1b or \u202e."""
    return text if text.isprintable() else "".join(_escaped(c) if _steers(c) else c for c in text)


def harmless(message: str) -> str:
    """Return a message of several lines as `one_line` would, but keep its line breaks and tabs."""
    return "\n".join("\t".join(map(one_line, line.split("\t"))) for line in message.split("\n"))


def shell_word(path: str) -> str:
    """Return a path as a word that a shell takes as it is, on one line, and no command as an option."""
    word = f"./{path}" if path.startswith("-") else path
    return "$" + quoted(word, limit=None) if not word.isprintable() else shlex.quote(word)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in _STEERING and character not in _JOINERS


def _escaped(character: str) -> str:
    return repr(character)[1:-1]
