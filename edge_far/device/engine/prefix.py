"""Runs the prefix of a bundle: the frozen blocks below the cut, each text by itself.

A text's hidden states are made of that text alone, at its own length and without padding: 8-bit products scale by all
that they read, so a batch would make them depend on their neighbours. Numbers that are kept must not. Where many texts
are computed, each is one thread's work, as a text is too little for several to share, and weights of 8 bits are packed
once for all: products of few rows take as long to pack their weights as to multiply. The numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Prefix
from edge_far.device.engine.arena import SHRINK
from edge_far.device.engine.backend import packs_weights
from edge_far.device.engine.constants import MappedConstants
from edge_far.device.engine.options import load_session, session_options
from edge_far.texts.batches import Batch

__all__ = ["PrefixRunner", "Text"]

Text = tuple[np.ndarray, np.ndarray | None]  # ids and types, each [tokens]


class PrefixRunner:
    """One session of portable/prefix.onnx, which computes `at_once` texts side by side."""

    def __init__(
        self,
        bundle: Bundle,
        prefix: Prefix,
        threads: int,
        constants: MappedConstants | None = None,
        at_once: int = 1,
    ) -> None:
        """Load the graph; raises BundleError where this ONNX Runtime refuses it. Texts share the threads."""
        self.prefix = prefix
        self._constants = constants or MappedConstants(bundle)
        self._pool = ThreadPoolExecutor(at_once, "prefix") if at_once > 1 else None
        packed = packs_weights(bundle.manifest.portable, at_once)
        options = session_options(max(1, threads // at_once), packed=packed)
        self._constants.give_to(options, prefix.graph.name)
        self._session: ort.InferenceSession = load_session(bundle.path(f"portable/{prefix.graph.name}.onnx"), options)
        self._takes_types = any(value.name == "token_type_ids" for value in self._session.get_inputs())
        self._shrink_arena()

    def text(self, ids: np.ndarray, types: np.ndarray | None) -> np.ndarray:
        """Return float32 [tokens, width], or [width] where pooled, of one text's ids (and types) [tokens]."""
        return self._run(np.asarray(ids, np.int64)[None], types)

    def texts(self, texts: Sequence[Text]) -> Iterator[np.ndarray]:
        """Yield what text() returns of each, in order; texts that nobody waits for any more are not begun."""
        if self._pool is None:
            for ids, types in texts:
                yield self.text(ids, types)
        else:
            yield from self._pool.map(lambda text: self.text(*text), texts)

    def close(self) -> None:
        """Give the arena's memory back; the constants' pages go with the last who maps them."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._shrink_arena()

    def _run(self, row: np.ndarray, types: np.ndarray | None, options: ort.RunOptions | None = None) -> np.ndarray:
        feeds = {"input_ids": row, "attention_mask": np.ones_like(row)}
        if self._takes_types:
            feeds["token_type_ids"] = np.zeros_like(row) if types is None else np.asarray(types, np.int64)[None]
        (hidden,) = self._session.run(None, feeds, options)
        result: np.ndarray = hidden[0]
        return result

    def _shrink_arena(self) -> None:
        """Run the shortest text there is: the arena heeds the size of its region only after that (arena.py)."""
        self._run(np.zeros((1, 1), np.int64), None, SHRINK)

    def batch(self, batch: Batch) -> np.ndarray:
        """Return float32 [B, S, width], zeros behind a text's end, or [B, width] where pooled."""
        rows, length = batch.input_ids.shape
        if self.prefix.pooled:
            found = np.zeros((rows, self.prefix.width), np.float32)
        else:
            found = np.zeros((rows, length, self.prefix.width), np.float32)
        for row, count in enumerate(batch.attention_mask.sum(axis=1)):
            types = None if batch.token_type_ids is None else batch.token_type_ids[row, :count]
            hidden = self.text(batch.input_ids[row, :count], types)
            if self.prefix.pooled:
                found[row] = hidden
            else:
                found[row, :count] = hidden
        return found
