"""The texts of a task with what the frozen blocks make of them, from an activation cache of their own.

The cache is the device's (device/cache/), on disk in a folder for temporary files, filled and read as in training:
the fill is the first epoch's price, and a batch of every later one comes from the file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.console import Console
from edge_far.device.board.memory import release_free_memory
from edge_far.device.cache.database import RowDatabase
from edge_far.device.cache.hidden import HiddenStates
from edge_far.device.engine.arena import make_arena
from edge_far.device.engine.backend import FillWidth
from edge_far.device.engine.prefix import PrefixRunner
from edge_far.device.planning.parts import fill_activations_mib
from edge_far.errors import StorageError
from edge_far.texts.batches import Batch, collate
from edge_far.texts.encode import Encoded

__all__ = ["FrozenTexts", "as_encoded"]

UNBOUNDED = 1 << 50
QUIET = Console(quiet=True)


class FrozenTexts:
    """A bundle's prefix over full-length batches; the cache goes with the block."""

    def __init__(
        self, bundle: Bundle, batches: Sequence[Batch], threads: int, width: FillWidth, activations_mib: float
    ) -> None:
        """`width` says how much is computed at once; `activations_mib` is what training needs of the same arena."""
        prefix = bundle.manifest.portable.prefix
        assert prefix is not None
        self.sets = [as_encoded(batch) for batch in batches]
        length = int(batches[0].input_ids.shape[1])
        arena = max(activations_mib, fill_activations_mib(prefix, length, width))

        def load(width: FillWidth) -> PrefixRunner:
            make_arena(arena)
            return PrefixRunner(bundle, prefix, threads, width=width)

        self._folder = tempfile.TemporaryDirectory(prefix="edge-far-bench-")
        self._database = RowDatabase(Path(self._folder.name, "hidden.sqlite3"), UNBOUNDED)
        self._hidden = HiddenStates(prefix, load, self._database, f"onnxruntime {ort.__version__}", width)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._folder.cleanup()

    def fill(self, number: int) -> None:
        """Compute and keep the texts of one batch; raises StorageError where the disk has no room."""
        if not self._hidden.fill(self.sets[number], QUIET).stored:
            raise StorageError("no room for the activations", where=self._folder.name)

    def end_fill(self) -> None:
        """Give the prefix's memory back."""
        self._hidden.close_prefix()
        release_free_memory()

    def micro_batches(self, number: int, rows: int) -> Iterator[Batch]:
        """Yield a batch in parts of at most `rows` texts, their hidden states read from the cache."""
        texts = self.sets[number]
        for indices in np.split(np.arange(len(texts)), range(rows, len(texts), rows)):
            yield self._hidden.attach(texts, indices, collate(texts, indices))


def as_encoded(batch: Batch) -> Encoded:
    """Return a batch without padding as encoded texts."""
    rows, length = batch.input_ids.shape
    return Encoded(
        tokens=batch.input_ids.astype(np.int32).ravel(),
        starts=np.arange(rows + 1, dtype=np.int64) * length,
        type_ids=None,
        labels=batch.labels,
        truncated=0,
        pad_id=0,
        max_seq_len=length,
    )
