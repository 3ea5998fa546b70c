"""Where a text may be cut so that a tokenizer gives the same tokens before the cut as it gives the whole text.

A place is safe where the tokenizer itself separates the two characters around it, whatever follows. That is decided by
its parts, and only known parts count:

1. The normaliser works character by character, or on a character and its accents: it joins nothing across a blank.
2. The pre-tokenizer begins a new word at a blank (or at punctuation); the model sees words one by one.
3. No added token, such as a special token's name in a text, spans the place.
4. The character before the cut is a letter, a digit or ASCII punctuation, which no normaliser turns into a blank.

A tokenizer with any other part has no safe place.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

__all__ = ["Boundaries"]

PUNCTUATION = r"!-/:-@\[-\^`{-~"  # of ASCII, without "_", which some count as a letter
CJK = "\u3400-\u4dbf\u4e00-\u9fff"
CJK_PUNCTUATION = "\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
LETTERS = frozenset({"Ll", "Lu", "Lt", "Lo", "Nd"})
# Letters by category that are shown as nothing, or that form one character with what follows them.
NO_LETTERS = frozenset(
    "\u0d4e\u115f\u1160\u3164\uffa0\U000111c2\U000111c3\U000113d1\U0001193f\U00011941\U00011a3a\U00011a84"
    "\U00011a85\U00011a86\U00011a87\U00011a88\U00011a89\U00011d46\U00011f02"
)
LOCAL_NORMALISERS = frozenset(
    {"BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "StripAccents"}
)
QUOTES = frozenset({"``", "''"})  # what ALBERT replaces
BLANK_RUNS = frozenset({" {2,}", r"\s+"})
# Pre-tokenizers that only split further, and leave every character as it is.
SPLITTERS = frozenset({"Digits", "Punctuation", "UnicodeScripts"})
BLANK_REMOVERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
PUNCTUATION_SPLITTERS = frozenset({"BertPreTokenizer", "ByteLevel", "Whitespace"})


@dataclass(frozen=True)
class Boundaries:
    """The safe places of one tokenizer: `places` matches the two characters around one.

    `restarts` matches around those where also what follows can be encoded by itself, None where there are none.
    `added` holds the added tokens' texts, in lower case too.
    """

    places: re.Pattern[str]
    restarts: re.Pattern[str] | None
    added: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Boundaries | None:
        """Return the boundaries of a tokenizer, None where no place is known to be safe."""
        normalisers = _parts(tokenizer.normalizer, "normalizers")
        words = _parts(tokenizer.pre_tokenizer, "pretokenizers")
        added = list(tokenizer.get_added_tokens_decoder().values())
        contents = tuple(dict.fromkeys(form for token in added for form in _forms(token.content)))
        if normalisers is None or words is None or any(re.search(r"\S\s", content) for content in contents):
            return None
        kept = _blanks_kept(normalisers)
        first = next((part for part in words if part["type"] not in SPLITTERS), None)
        if kept is None or first is None or not _begins_words_at_blanks(first, blanks_kept=kept):
            return None
        blank = " " if first["type"] in ("Metaspace", "CharDelimiterSplit") else " \t\n\r"
        rules = [rf"\S(?=[{blank}])", *_rules_without_blanks(normalisers, words, contents)]
        places = re.compile("|".join(rules))
        return cls(places, _restarts(places, first, normalisers, added), contents)

    def after(self, text: str, start: int) -> int | None:
        """Return the first safe place at or behind `start` (at least 1), None where there is none before the end."""
        return next(self._safe(self.places, text, start), None)

    def pieces(self, text: str, characters: int) -> Iterator[str]:
        """Yield pieces of at least `characters` that have together as many tokens as the text; else the text whole."""
        start = 0
        while self.restarts is not None:
            stop = next(self._safe(self.restarts, text, start + characters), None)
            if stop is None:
                break
            yield text[start:stop]
            start = stop
        yield text[start:]

    def _safe(self, pattern: re.Pattern[str], text: str, start: int) -> Iterator[int]:
        for match in pattern.finditer(text, max(0, start - 1)):
            place = match.end()
            if place < len(text) and _is_solid(text[place - 1]) and not self._inside_added_token(text, place):
                yield place

    def _inside_added_token(self, text: str, place: int) -> bool:
        around = text[place - 1 : place + 1]
        return any(around in content or around.lower() in content for content in self.added)


def _parts(component: Any, members: str) -> list[dict[str, Any]] | None:
    """Return the settings of a component, or of the members of a sequence; None where they cannot be told."""
    if component is None:
        return []
    try:
        found: list[dict[str, Any]] = [json.loads(component.__getstate__())]
    except Exception:  # one written in Python, or a state that is no document
        return None
    while any(part["type"] == "Sequence" for part in found):
        found = [inner for part in found for inner in (part[members] if part["type"] == "Sequence" else [part])]
    return found


def _forms(content: str) -> list[str]:
    return [form for text in (content, content.lower()) for form in (text, unicodedata.normalize("NFKC", text))]


def _blanks_kept(normalisers: list[dict[str, Any]]) -> bool | None:
    """Return whether blanks are still blanks after known normalisers; None where one of them is not known."""
    kept = True
    for part in normalisers:
        if part["type"] == "Replace":
            pattern, content = part["pattern"], part["content"]
            if pattern.get("Regex") in BLANK_RUNS or pattern.get("String") == " ":
                if content not in (" ", "\u2581"):
                    return None
                kept = kept and content == " "
            elif pattern.get("String") not in QUOTES or content != '"':
                return None
        elif part["type"] not in LOCAL_NORMALISERS | {"Strip"}:
            return None
    return kept


def _begins_words_at_blanks(part: dict[str, Any], *, blanks_kept: bool) -> bool:
    """Return whether a pre-tokenizer separates any character from a blank behind it."""
    kind = part["type"]
    if kind == "Metaspace":
        return part.get("split", True) is True and part.get("replacement") == "\u2581"
    if not blanks_kept:
        return False
    if kind == "ByteLevel":
        return part.get("use_regex", True) is True
    return kind in BLANK_REMOVERS or (kind == "CharDelimiterSplit" and part.get("delimiter") == " ")


def _rules_without_blanks(
    normalisers: list[dict[str, Any]], words: list[dict[str, Any]], added: tuple[str, ...]
) -> list[str]:
    """Return further rules: texts such as minified JSON, or Chinese, have no blanks for pages."""
    rules: list[str] = []
    if any(part["type"] == "Replace" for part in normalisers):
        return rules
    # WhitespaceSplit before another one changes no character; behind any other, what is split is no longer the text.
    first = next((part for part in words if part["type"] not in SPLITTERS | {"WhitespaceSplit"}), None)
    kind = first["type"] if first else None
    if first and kind in PUNCTUATION_SPLITTERS and first.get("use_regex", True) is True:
        rules.append(f"[A-Za-z0-9{CJK}](?=[{PUNCTUATION}{CJK_PUNCTUATION}])")
    if kind == "BertPreTokenizer":
        rules.append(f"[{PUNCTUATION}_](?=[!-~])")
    spaced = len(normalisers) == 1 and normalisers[0].get("handle_chinese_chars") is True
    if spaced and kind in BLANK_REMOVERS and not any(re.search(f"[{CJK}]", content) for content in added):
        rules.append(f"[{CJK}]")
    return rules


def _restarts(
    places: re.Pattern[str], first: dict[str, Any], normalisers: list[dict[str, Any]], added: list[AddedToken]
) -> re.Pattern[str] | None:
    """Return the places behind which a text can be encoded by itself: its beginning must not be treated otherwise."""
    if any(part["type"] == "Strip" for part in normalisers) or any(t.rstrip or t.single_word for t in added):
        return None
    kind = first["type"]
    plain = kind in ("BertPreTokenizer", "Whitespace") or (kind == "ByteLevel" and not first["add_prefix_space"])
    return places if plain else re.compile(r"\S(?= )")


def _is_solid(character: str) -> bool:
    """Return whether every normaliser keeps a character as something that is no blank."""
    if "!" <= character <= "~":
        return True
    decomposed = unicodedata.normalize("NFKD", character)
    letters = {unicodedata.category(character), unicodedata.category(decomposed[0])} <= LETTERS
    return letters and " " not in decomposed and character not in NO_LETTERS
