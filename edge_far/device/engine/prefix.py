"""Runs the prefix of a bundle: the frozen blocks below the cut, whose results are kept.

A text's hidden states are made of that text alone, at its own length and without padding: numbers that are kept must
not depend on what happened to be computed beside them. Where many texts are computed, texts of one length share a run,
as weights are read once for all of them then (only where products scale by rows, Prefix.by_rows); each run is one
thread's work, as it is too little for several to share, and weights of 8 bits are packed once for all: products of few
rows take as long to pack their weights as to multiply. The numbers are the same, bit for bit.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Prefix
from edge_far.device.engine.arena import SHRINK
from edge_far.device.engine.backend import ALONE, FillWidth, packs_weights, texts_of_a_run
from edge_far.device.engine.constants import MappedConstants
from edge_far.device.engine.options import load_session, session_options
from edge_far.texts.batches import Batch

__all__ = ["PrefixRunner", "Text"]

Text = tuple[np.ndarray, np.ndarray | None]  # ids and types, each [tokens]


class PrefixRunner:
    """One session of portable/prefix.onnx, which computes as much at once as `width` says."""

    def __init__(
        self,
        bundle: Bundle,
        prefix: Prefix,
        threads: int,
        constants: MappedConstants | None = None,
        width: FillWidth = ALONE,
    ) -> None:
        """Load the graph; raises BundleError where this ONNX Runtime refuses it. Runs share the threads."""
        self.prefix, self._tokens, self._ahead = prefix, width.tokens, 2 * width.threads
        self._constants = constants or MappedConstants(bundle)
        self._pool = ThreadPoolExecutor(width.threads, "prefix") if width.threads > 1 else None
        packed = packs_weights(bundle.manifest.portable, width.threads)
        options = session_options(max(1, threads // width.threads), packed=packed)
        self._constants.give_to(options, prefix.graph.name)
        self._session: ort.InferenceSession = load_session(bundle.path(f"portable/{prefix.graph.name}.onnx"), options)
        self._takes_types = any(value.name == "token_type_ids" for value in self._session.get_inputs())
        self._shrink_arena()

    def texts(self, texts: Iterable[Text]) -> Iterator[np.ndarray]:
        """Yield float32 [tokens, width], or [width] where pooled, of each text, in order.

        A few runs are computed ahead; what nobody waits for any more is not begun.
        """
        runs = self._runs(texts, self._tokens)
        if self._pool is None:
            yield from itertools.chain.from_iterable(map(self._run, runs))
            return
        ahead = deque(self._pool.submit(self._run, run) for run in itertools.islice(runs, self._ahead))
        try:
            while ahead:
                found = ahead.popleft().result()
                ahead.extend(self._pool.submit(self._run, run) for run in itertools.islice(runs, 1))
                yield from found
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """Give the arena's memory back; the constants' pages go with the last who maps them."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._shrink_arena()

    def _runs(self, texts: Iterable[Text], tokens: int) -> Iterator[Sequence[Text]]:
        """Yield the texts of each run: neighbours of one length, of at most so many tokens together."""
        for length, group in itertools.groupby(texts, lambda text: len(text[0])):
            neighbours, most = list(group), texts_of_a_run(self.prefix, length, tokens)
            for start in range(0, len(neighbours), most):
                yield neighbours[start : start + most]

    def _run(self, texts: Sequence[Text], options: ort.RunOptions | None = None) -> np.ndarray:
        """Return float32 [texts, tokens, width], or [texts, width] where pooled, of texts of one length."""
        rows = np.stack([ids for ids, _ in texts]).astype(np.int64)
        feeds = {"input_ids": rows, "attention_mask": np.ones_like(rows)}
        if self._takes_types:
            given = [np.zeros_like(ids) if types is None else types for ids, types in texts]
            feeds["token_type_ids"] = np.stack(given).astype(np.int64)
        (hidden,) = self._session.run(None, feeds, options)
        found: np.ndarray = hidden
        return found

    def _shrink_arena(self) -> None:
        """Run the shortest text there is: the arena heeds the size of its region only after that (arena.py)."""
        self._run([(np.zeros(1, np.int64), None)], SHRINK)

    def batch(self, batch: Batch) -> np.ndarray:
        """Return float32 [B, S, width], zeros behind a text's end, or [B, width] where pooled."""
        rows, length = batch.input_ids.shape
        if self.prefix.pooled:
            found = np.zeros((rows, self.prefix.width), np.float32)
        else:
            found = np.zeros((rows, length, self.prefix.width), np.float32)
        counts, types = batch.attention_mask.sum(axis=1), batch.token_type_ids
        order = np.argsort(counts, kind="stable")
        texts = [
            (batch.input_ids[row, : counts[row]], None if types is None else types[row, : counts[row]]) for row in order
        ]
        computed = itertools.chain.from_iterable(map(self._run, self._runs(texts, length)))
        for row, hidden in zip(order, computed, strict=True):
            if self.prefix.pooled:
                found[row] = hidden
            else:
                found[row, : counts[row]] = hidden
        return found
