"""The lines of a text file or stream: bounded in length, decoded and counted. Knows no format.

A wrong file costs neither memory nor time: no line is read beyond the limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from edge_far.texts.reading.problems import FileProblems, NothingMoreToTell, RecordProblem

__all__ = ["MAX_LINE_BYTES", "Lines", "decoded", "has_lone_return", "lone_returns", "read_texts", "without_line_end"]

MAX_LINE_BYTES = 1 << 20  # without the line end
LINE_END_BYTES = 2
BYTE_ORDER_MARK = "\ufeff"
UTF8_HINT = "convert the file to UTF-8, for example with iconv -f LATIN1 -t UTF-8"
UTF16_HINT = "convert it, for example with iconv -f UTF-16 -t UTF-8"
RETURNS_HINT = r"convert the file, for example with tr '\r' '\n'"


class Lines:
    """The lines of an open file, line ends included; `number` counts them, `size` is a line's bytes without its end."""

    def __init__(self, file: BinaryIO, problems: FileProblems) -> None:
        self.number = 0
        self.size = 0
        self._file = file
        self._problems = problems

    def __iter__(self) -> Iterator[str]:
        while raw := self._file.readline(MAX_LINE_BYTES + LINE_END_BYTES):
            self.number += 1
            self.size = len(without_line_end(raw))
            try:
                self._check_file(raw)
                text = decoded(raw)
            except RecordProblem as wrong:
                self._problems.add(self.number, wrong)
                continue
            yield text

    def rest(self) -> str:
        """Return all that is left as one text, however long; a wrong encoding ends the reading."""
        self.number += 1
        raw = self._file.read()
        try:
            self.size = 0
            self._check_file(raw[: 2 * LINE_END_BYTES])
            return decoded(raw)
        except RecordProblem as wrong:
            self._problems.add(self.number, wrong, last=True)
            raise

    def _check_file(self, raw: bytes) -> None:
        """End the reading of what is no text file in UTF-8."""
        if self.size > MAX_LINE_BYTES:
            wrong = RecordProblem(
                f"line longer than {MAX_LINE_BYTES} bytes", "one example is one line; is this the right file?"
            )
            self._problems.add(self.number, lone_returns() if b"\r" in raw[:MAX_LINE_BYTES] else wrong, last=True)
        if self.number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            self._problems.add(1, RecordProblem("the file is UTF-16, not UTF-8", UTF16_HINT), last=True)


def without_line_end(line: bytes) -> bytes:
    """Return a line without its LF or CRLF."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def decoded(line: bytes) -> str:
    """Return the text of a line without a byte order mark, which also stands where files were joined.

    Raises RecordProblem for bytes that are not UTF-8, or NUL.
    """
    if b"\0" in line:
        raise RecordProblem("line holds NUL bytes", "is this a text file in UTF-8?")
    try:
        return line.decode("utf-8").removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
        raise RecordProblem(f"not UTF-8: {found}", UTF8_HINT) from error


def has_lone_return(text: str) -> bool:
    """Return whether a line holds a carriage return that is not part of its end."""
    return "\r" in text.removesuffix("\n").removesuffix("\r")


def lone_returns() -> RecordProblem:
    """Return the problem of a file whose lines end as on an old Macintosh."""
    return RecordProblem("lines end in a carriage return alone (CR)", RETURNS_HINT)


def read_texts(file: BinaryIO, name: str) -> list[str]:
    """Return the lines of a stream without their ends, blank ones too; `name` stands for it in a DataError (65)."""
    problems = FileProblems(name)
    lines = Lines(file, problems)
    texts = []
    try:
        for line in lines:
            if lines.number == 1 and not line.endswith("\n") and has_lone_return(line):
                problems.add(1, lone_returns(), last=True)
            texts.append(line.removesuffix("\n").removesuffix("\r"))
    except NothingMoreToTell:
        pass
    problems.raise_if_any()
    return texts
