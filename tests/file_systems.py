"""File systems that refuse what ours can: fsync (network and shared folders), renames (a lower layer of an overlay)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from edge_far import storage
from edge_far.disk import durability

__all__ = ["LowerLayer", "refuse_fsync"]


def refuse_fsync(monkeypatch: pytest.MonkeyPatch, number: int, *, files: bool = False) -> None:
    """Let os.fsync fail from now on: of directories, and where asked of files too."""
    genuine = os.fsync

    def fsync(descriptor: int) -> None:
        if files or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        genuine(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(durability, "_warned", [])


class LowerLayer:
    """Directories that are added to it cannot be renamed until they have been removed once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lower: set[Path] = set()
        genuine_rename, genuine_rmdir = os.rename, os.rmdir

        def rename(source: Path, target: Path) -> None:
            if Path(source) in self.lower:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
            genuine_rename(source, target)

        def rmdir(path: Path, **options: Any) -> None:
            genuine_rmdir(path, **options)
            self.lower.discard(Path(path))

        monkeypatch.setattr(os, "rename", rename)
        monkeypatch.setattr(os, "rmdir", rmdir)
        monkeypatch.setattr(storage, "exchange", lambda first, second: False)

    def add(self, directory: Path) -> Path:
        self.lower.add(directory)
        return directory
