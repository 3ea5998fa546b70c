"""Small files of the kernel: what they say, and that any failure is only an unknown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_far.device.board.kernel_files import names_in, read_bytes, read_name, read_number, read_text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42\n", 42),
        (" -7 \n", -7),
        ("+5", 5),
        ("0042", 42),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775809", None),
        ("9" * 5000, None),
        ("", None),
        ("4.2", None),
        ("4_2", None),
        ("0x10", None),
        ("\uff14", None),  # a digit of another script
        ("1 2", None),
    ],
)
def test_numbers(tmp_path: Path, text: str, number: int | None) -> None:
    (tmp_path / "file").write_text(text)
    assert read_number(tmp_path / "file") == number


def test_bounds_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("100")
    assert read_number(tmp_path / "file", least=0, most=100) == 100
    assert read_number(tmp_path / "file", least=101) is None and read_number(tmp_path / "file", most=99) is None


def test_whatever_fails_is_unknown(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nobody writes")
    for name in ("missing", ".", "nobody writes/below", "x" * 300, "a\0b"):
        assert read_text(tmp_path / name) is None and read_number(tmp_path / name) is None
    assert read_text(tmp_path / "nobody writes") == ""
    assert names_in(tmp_path / "missing") == names_in(tmp_path / "nobody writes") == []


def test_bytes_are_told_as_they_are_and_text_is_always_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"Raspberry \xff\0\n")
    assert read_bytes(tmp_path / "file") == b"Raspberry \xff" and read_text(tmp_path / "file") == "Raspberry \ufffd"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cpu-thermal\n", "cpu-thermal"),
        (b"cpu\nWAIT heat \x1b[31m\n", "cpu WAIT heat \ufffd[31m"),
        (b"a\0b\xff", "a\ufffdb\ufffd"),
        (b"x" * 5000, "x" * 80),
        (b" \n", None),
    ],
)
def test_a_name_may_stand_in_a_sentence(tmp_path: Path, content: bytes, name: str | None) -> None:
    (tmp_path / "type").write_bytes(content)
    assert read_name(tmp_path / "type") == name


def test_a_long_answer_comes_whole_and_an_endless_one_ends() -> None:
    assert read_bytes(Path("/dev/zero")) == b""  # NULs at the ends do not count
    assert (read_text(Path("/proc/self/status")) or "").startswith("Name:")
