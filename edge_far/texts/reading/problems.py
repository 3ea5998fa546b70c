"""What is wrong with the records of a file, collected and told as one error. Knows no format."""

from __future__ import annotations

from pathlib import Path

from edge_far.errors import DataError

__all__ = ["FileProblems", "NothingMoreToTell", "RecordProblem"]

MAX_ERRORS = 5


class RecordProblem(Exception):
    """What is wrong with one record, and what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NothingMoreToTell(Exception):
    """Reading on would only repeat errors."""


class FileProblems:
    """Up to MAX_ERRORS errors of one file or stream, told as one line."""

    def __init__(self, where: Path | str) -> None:
        self._where = where
        self._found: list[tuple[int, RecordProblem]] = []
        self._stopped = False

    def add(self, number: int, wrong: RecordProblem, *, last: bool = False) -> None:
        """Note an error of line `number`; raises NothingMoreToTell when it is the last one worth telling."""
        self._found.append((number, wrong))
        if last or len(self._found) == MAX_ERRORS:
            self._stopped = True
            raise NothingMoreToTell

    def raise_if_any(self) -> None:
        """Raise the DataError (65) for everything found."""
        if not self._found:
            return
        number, wrong = self._found[0]
        message = wrong.message
        if others := [str(number) for number, _ in self._found[1:]]:
            count = f"at least {len(others)}" if self._stopped else str(len(others))
            where = f"lines {', '.join(others[:-1])} and {others[-1]}" if len(others) > 1 else f"line {others[0]}"
            message = f"{message}; and {count} more, on {where}"
        raise DataError(message, where=f"{self._where}:{number}", hint=wrong.hint)
