"""Appends what happens in a run to RUN/log.jsonl: one JSON object a line, written at once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_far.storage import storage_error

__all__ = ["RunLog"]


class RunLog:
    """An open run log; every line has `event` and `time_s` (seconds since the epoch). Raises StorageError.

    `empty` says whether the log had no line before this one was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Unbuffered: after a full disk no half line waits to be written when the file is closed.
            self._file = path.open("ab", buffering=0)
            self.empty = self._file.tell() == 0
            if not self.empty and not _ends_with_newline(path):
                self._file.write(b"\n")  # a line torn by a power cut stays by itself
        except OSError as error:
            raise storage_error(error, path) from error

    def write(self, event: str, **values: Any) -> None:
        """Append one event."""
        record = {"event": event, "time_s": round(time.time(), 3), **values}
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        try:
            while line:  # a disk that is nearly full takes a part, then refuses the rest
                line = line[self._file.write(line) :]
        except OSError as error:
            raise storage_error(error, self.path) from error

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
