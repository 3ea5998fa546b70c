"""Takes the host's samples over from files that lie on the device, whenever one of them is new.

`replay` holds samples to train on besides the device's examples, `base` those that measure forgetting.
"""

from __future__ import annotations

from pathlib import Path

from edge_far.daemon.context import Context
from edge_far.storage import storage_error
from edge_far.texts.data import iterate_examples

__all__ = ["HostSamples"]


class HostSamples:
    """The files that the command line named, or None; remembers which version of them the store has."""

    def __init__(self, replay: Path | None, base: Path | None) -> None:
        self._replay = replay
        self._base = base
        self._stamp: list[tuple[float, int]] | None = None

    def load(self, context: Context) -> None:
        """Bring the store up to date with the files, or empty it of samples where the profile has no use for them.

        Raises StorageError (74), InputMissing (66), DataError (65) for a file that cannot be read or is wrong.
        """
        store = context.store
        files = [path for path in (self._replay, self._base) if path is not None]
        if not files or not context.profile.adaptation.use_replay:
            if store.counts().replay:
                with store.transaction():
                    store.replace_replay([])
            self._stamp = None
            return
        stamp = [_stamp_of(path) for path in files]
        if stamp != self._stamp or not store.counts().replay:
            labels = context.labels
            replay = None if self._replay is None else iterate_examples(self._replay, labels=labels)
            base = None if self._base is None else iterate_examples(self._base, labels=labels)
            with store.transaction():
                store.replace_replay(replay or [], base)
            self._stamp = stamp


def _stamp_of(path: Path) -> tuple[float, int]:
    """Return what tells a file from its earlier version: time of change and bytes."""
    try:
        found = path.stat()
    except OSError as error:
        raise storage_error(error, path) from error
    return found.st_mtime, found.st_size
