"""Arguments with bounds or an encoding, refused when the command line is read; imports little: --help is quick."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from edge_far.bundles.manifest import bounds_of
from edge_far.errors import ConfigError, DataError, EdgeFarError, InputMissing
from edge_far.json_file import Within
from edge_far.texts.reading.columns import Columns, parse_columns

__all__ = [
    "LARGEST",
    "SEEDS",
    "AtLeast",
    "Number",
    "add_columns_argument",
    "add_setting",
    "check_root",
    "text_argument",
]

LARGEST = 2**63 - 1
SHOWN_CHARACTERS = 40


class AtLeast(Within):
    """A bound below; above, what 64 bits hold."""

    def __init__(self, low: int) -> None:
        super().__init__(low, LARGEST)


SEEDS = bounds_of("seed")


class Number(argparse.Action):
    """Stores a number that lies within bounds; any other is refused before a file is opened.

    `refusal` is the class of error, ConfigError (78) unless said; `unit` follows the bounds in its message.
    """

    def __init__(
        self, *words: Any, within: Within, refusal: type[EdgeFarError] = ConfigError, unit: str = "", **settings: Any
    ) -> None:
        super().__init__(*words, **settings)
        self.within, self.refusal, self.unit = within, refusal, unit

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the number; raises `refusal`."""
        if not self.within.low <= values <= self.within.high:  # so NaN is refused as well
            where = self.option_strings[0] if self.option_strings else self.dest
            raise self.refusal(f"must be {self._bounds(values)}, not {_shown(values)}", where=where)
        setattr(namespace, self.dest, values)

    def _bounds(self, value: float) -> str:
        low, high = self.within.low, self.within.high
        if isinstance(self.within, AtLeast):
            return f"at most {high}" if value > high else f"at least {low}"
        return f"from {_shown(low)} to {_shown(high)}{self.unit}"


def add_setting(parser: Any, option: str, **words: Any) -> None:
    """Declare a number that overrides the bundle's training setting of the same name, within that one's bounds.

    `parser` is a parser or a group of one; `words` are further arguments of add_argument.
    """
    within = bounds_of(option.removeprefix("--").replace("-", "_"))
    parser.add_argument(option, action=Number, type=type(within.low), within=within, **words)


def add_columns_argument(parser: Any) -> None:
    """Declare how a data file calls our fields."""
    parser.add_argument(
        "--columns",
        type=parse_columns,
        default=Columns(),
        metavar="OURS=THEIRS,...",
        help="the file's names of text, text_pair and label, where they are others: text=sentence1,label=gold_label",
    )


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


def check_root(root: Path) -> None:
    """Raise InputMissing (66) where --root is no directory."""
    if not root.is_dir():
        what = "is a file, not a directory" if root.exists() else "no such directory"
        raise InputMissing(what, where=str(root), hint="name the root of a system's files")


def _shown(value: float) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
