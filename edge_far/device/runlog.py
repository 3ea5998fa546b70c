"""Appends what happens in a run to RUN/log.jsonl: one JSON object a line, flushed at once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["RunLog"]


class RunLog:
    """An open run log; every line has `event` and `time_s` (seconds since the epoch)."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        if self._file.tell() and not _ends_with_newline(path):
            self._file.write("\n")  # a line torn by a power cut stays by itself

    def write(self, event: str, **values: Any) -> None:
        """Append one event."""
        record = {"event": event, "time_s": round(time.time(), 3), **values}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

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
