"""Hidden states of texts: from the cache where they are there, else by the prefix, and always the same numbers.

What a caller gets has gone through bytes (rows.py) in either case, so a run does not depend on what was in the cache.
A row's key is of 32 bytes of SHA-256: 8 of the prefix and of the runtime that computes it, then 24 of these and of the
text's token ids and types: these say all of tokenizer, length limit, text and pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_far.bundles.manifest import Prefix
from edge_far.console import Console
from edge_far.device.cache.database import RowDatabase
from edge_far.device.cache.rows import decode, encode, row_bytes
from edge_far.device.engine.backend import ALONE, FillWidth
from edge_far.device.engine.prefix import PrefixRunner
from edge_far.texts.batches import Batch
from edge_far.texts.encode import Encoded

__all__ = ["Filled", "HiddenStates", "cache_bytes", "longest_rows_bytes", "row_keys"]

TEXTS_AT_ONCE = 64  # of a transaction while the cache is filled
OWN_BYTES = 8  # with which the keys of a prefix begin
ROW_OVERHEAD = 160  # bytes of key, index and page that a row takes besides its content


@dataclass(frozen=True)
class Filled:
    """What filling found and did, in texts; `stored` says whether all are in the cache now."""

    texts: int
    computed: int
    stored: bool


class HiddenStates:
    """Gives batches their hidden states; `database` is None where nothing is kept.

    `load` makes the prefix's runner when it is first needed, of a width: `width` while the cache is filled, ALONE while
    training needs the memory. `close_prefix` lets it go again.
    """

    def __init__(
        self,
        prefix: Prefix,
        load: Callable[[FillWidth], PrefixRunner],
        database: RowDatabase | None,
        runtime: str,
        width: FillWidth = ALONE,
    ) -> None:
        self.prefix = prefix
        self._width = width
        self._load = load
        self._database = database
        self._runtime = runtime
        self._runner: PrefixRunner | None = None
        self._keys: dict[int, list[bytes]] = {}

    def close_prefix(self) -> None:
        """Give the prefix's memory back; the next text that is not in the cache loads it again."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None

    def fill(
        self,
        encoded: Encoded,
        console: Console,
        stop: Callable[[], None] = lambda: None,
        needed: Iterable[Encoded] = (),
    ) -> Filled:
        """Compute and keep what the cache lacks of these texts, each once; `stop` may raise between two texts.

        The longest come first, those of one length together, which may share a run (engine/prefix.py).
        Where there is no room, rows go that belong neither to these texts nor to those `needed` besides.
        """
        keys = row_keys(encoded, self.prefix, self._runtime)
        places = {key: index for index, key in enumerate(keys)}
        database = self._database
        if database is None:
            return Filled(len(places), 0, stored=False)
        known = database.known(list(places))
        lengths = encoded.lengths
        lacking = sorted((key for key in places if key not in known), key=lambda key: -lengths[places[key]])
        kept = set(places).union(*(row_keys(each, self.prefix, self._runtime) for each in needed))
        with console.progress(len(lacking), "computing frozen activations") as progress:
            computed = self._compute(encoded, [places[key] for key in lacking], self._width)
            for start in range(0, len(lacking), TEXTS_AT_ONCE):
                rows = {}
                for number, key in enumerate(lacking[start : start + TEXTS_AT_ONCE], start=start + 1):
                    stop()
                    rows[key] = next(computed)
                    progress.update(number)
                if not _written(database, rows, kept):
                    return Filled(len(places), start, stored=False)
        return Filled(len(places), len(lacking), stored=True)

    def attach(self, encoded: Encoded, indices: np.ndarray, batch: Batch) -> Batch:
        """Return the batch of the examples `indices` with its hidden states."""
        if id(encoded) not in self._keys:
            self._keys[id(encoded)] = row_keys(encoded, self.prefix, self._runtime)
        keys = [self._keys[id(encoded)][index] for index in indices]
        found = self._database.read(keys) if self._database is not None else {}
        rows, length = batch.input_ids.shape
        width = self.prefix.width
        hidden = np.zeros((rows, width) if self.prefix.pooled else (rows, length, width), np.float32)
        for row, (key, index) in enumerate(zip(keys, indices, strict=True)):
            data = found.get(key)
            if data is None:
                data = found[key] = next(self._compute(encoded, [int(index)]))
                if self._database is not None:
                    self._database.write({key: data})  # it was damaged, or there was no room while it was filled
            tokens = 1 if self.prefix.pooled else int(encoded.lengths[index])
            decoded = decode(data, self.prefix.cache, tokens, width)
            if self.prefix.pooled:
                hidden[row] = decoded[0]
            else:
                hidden[row, :tokens] = decoded
        return replace(batch, hidden=hidden)

    def forget_others(self, *kept: Encoded) -> int:
        """Remove from the cache what belongs to none of these texts; return how many rows went."""
        if self._database is None:
            return 0
        return self._database.keep_only(key for each in kept for key in row_keys(each, self.prefix, self._runtime))

    def _compute(self, encoded: Encoded, indices: Sequence[int], width: FillWidth = ALONE) -> Iterator[bytes]:
        if self._runner is None:
            self._runner = self._load(width)
        places = [slice(encoded.starts[index], encoded.starts[index + 1]) for index in indices]
        types = encoded.type_ids
        texts = ((encoded.tokens[place], None if types is None else types[place]) for place in places)
        for hidden in self._runner.texts(texts):
            yield encode(np.atleast_2d(hidden), self.prefix.cache)


def row_keys(encoded: Encoded, prefix: Prefix, runtime: str) -> list[bytes]:
    """Return the key of every text."""
    base = hashlib.sha256(f"edge-far hidden 2\0{prefix.sha256}\0{prefix.cache}\0{runtime}\0".encode())
    own, keys = base.digest()[:OWN_BYTES], []
    for start, end in zip(encoded.starts[:-1], encoded.starts[1:], strict=True):
        digest = base.copy()
        digest.update(np.ascontiguousarray(encoded.tokens[start:end], "<i4").tobytes())
        if encoded.type_ids is not None and encoded.type_ids[start:end].any():
            digest.update(b"types")
            digest.update(encoded.type_ids[start:end].astype(np.int8).tobytes())
        keys.append(own + digest.digest()[OWN_BYTES:])
    return keys


def _written(database: RowDatabase, rows: dict[bytes, bytes], kept: set[bytes]) -> bool:
    """Write rows, if need be in the place of others; return False where there is none."""
    own = next(iter(rows))[:OWN_BYTES]
    return database.write(rows) or (database.make_room(rows, kept, own) and database.write(rows))


def cache_bytes(encoded: Encoded, prefix: Prefix) -> int:
    """Return about how many bytes of the disk the rows of these texts take; equal texts are counted as often."""
    tokens = np.ones(len(encoded), np.int64) if prefix.pooled else np.asarray(encoded.lengths)
    return row_bytes(prefix.cache, int(tokens.sum()), prefix.width) + ROW_OVERHEAD * len(encoded)


def longest_rows_bytes(texts: int, longest: int, prefix: Prefix) -> int:
    """Return the same of so many texts of `longest` tokens each."""
    return texts * (row_bytes(prefix.cache, 1 if prefix.pooled else longest, prefix.width) + ROW_OVERHEAD)
