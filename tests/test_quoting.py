"""What people see of data: quoted where it could be misread, never raw where it could steer a terminal."""

from __future__ import annotations

import subprocess
import unicodedata
from pathlib import Path

import pytest

from edge_far.errors import ConfigError
from edge_far.quoting import harmless, one_line, quoted, shell_word, shown

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # one picture, joined by an invisible character
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


@pytest.mark.parametrize("text", ["lights on", 'it\'s "on"', "Größe\u00a0ß", FAMILY, PERSIAN, "-", "a\\nb", "42"])
def test_what_is_clear_stays_as_it_is(text: str) -> None:
    assert shown(text) == one_line(text) == harmless(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb", r"'a\nb'"),
        ("a\r\nb\tc", r"'a\r\nb\tc'"),
        ("\x1b[31mred", r"'\x1b[31mred'"),
        ("\x9b2J", r"'\x9b2J'"),
        ("\u202eevil", r"'\u202eevil'"),
        ("a\u2028b\u2029c", r"'a\u2028b\u2029c'"),
        ("caf\udce9", r"'caf\udce9'"),
        ("\ufefftext", r"'\ufefftext'"),
        (" l0", "' l0'"),
        ("l0 ", "'l0 '"),
        ("", "''"),
        ("  ", "'  '"),
        ("'a'", "\"'a'\""),
    ],
)
def test_what_is_not_is_quoted(text: str, expected: str) -> None:
    assert shown(text) == expected


def test_quoted_is_cut_and_shown_is_not() -> None:
    assert quoted("a" * 60) == f"'{'a' * 60}'"
    assert quoted("a" * 61) == f"'{'a' * 57}...'"
    assert quoted("\n" * 100) == f"'{chr(92) + 'n'}{(chr(92) + 'n') * 56}...'"
    assert len(shown("\n" * 100)) == 202


def test_no_character_steers() -> None:
    blocks = (
        (0, 0x3000),
        (0xD7F0, 0xE010),
        (0xFE00, 0x10000),
        (0x110B0, 0x11100),
        (0x1D170, 0x1D180),
        (0xE0000, 0xE0080),
    )
    everything = "".join(chr(code) for start, stop in blocks for code in range(start, stop))
    left = {unicodedata.category(letter) for letter in one_line(everything) if letter not in "\u200c\u200d"}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert {letter for letter in harmless(everything) if unicodedata.category(letter) == "Cc"} == {"\n", "\t"}
    assert all(letter.isprintable() for letter in quoted(everything, limit=None))


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    error = ConfigError("no option a\nb\x1b[31m", where="x\r\n.yaml", hint="did you mean\t'b'?")
    assert str(error) == r"x\r\n.yaml: no option a\nb\x1b[31m (did you mean\t'b'?)"
    assert error.message == r"no option a\nb\x1b[31m"


def test_details_are_lines_of_their_own() -> None:
    error = ConfigError("2 errors", where="p.yaml", details=["At 'a': one\ntwo", "At 'b': three"])
    assert str(error) == "p.yaml: 2 errors\n  At 'a': one\\ntwo\n  At 'b': three"


@pytest.mark.parametrize("path", ["run", "my run", "it's", "-x", "a\nb", "caf\u00e9", "--", "a\tb;rm"])
def test_a_shell_takes_a_path_as_it_is(path: str) -> None:
    word = shell_word(path)
    assert "\n" not in word
    found = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, text=True, check=True).stdout
    assert Path(found) == Path(path) and not found.startswith("-")
