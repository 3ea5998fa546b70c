"""Hidden states: the same numbers with a cache, without one, and whatever happened to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Prefix
from edge_far.console import Console
from edge_far.device.cache.database import RowDatabase
from edge_far.device.cache.hidden import TEXTS_AT_ONCE, HiddenStates, cache_bytes, row_keys
from edge_far.device.engine.backend import ALONE, FillWidth
from edge_far.device.engine.prefix import PrefixRunner, Text
from edge_far.texts.batches import Batch, collate
from edge_far.texts.data import read_examples
from edge_far.texts.encode import Encoded, Encoder
from tests.tiny_cases import CASES as TINY

pytestmark = pytest.mark.device
OpenBundle = Callable[[str], Bundle]
QUIET = Console(quiet=True)
CASES = ["bert-head-5", "bert-top1-5", "distilbert-top1-5-int8"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hidden.sqlite3"


class Counting:
    """Makes runners, and counts the texts that they compute."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.texts, self.runs = bundle, 0, 0
        self.widths: list[FillWidth] = []

    def __call__(self, width: FillWidth) -> PrefixRunner:
        self.widths.append(width)
        runner = PrefixRunner(self.bundle, prefix_of(self.bundle), width.threads, width=width)
        run = runner._run

        def counted(texts: Sequence[Text], options: ort.RunOptions | None = None) -> np.ndarray:
            if options is None:  # else it only gives memory back
                self.texts += len(texts)
                self.runs += 1
            return run(texts, options)

        runner._run = counted  # type: ignore[method-assign]
        return runner


def prefix_of(bundle: Bundle) -> Prefix:
    prefix = bundle.manifest.portable.prefix
    assert prefix is not None
    return prefix


def encoded_by(bundle: Bundle, data: Path) -> Encoded:
    labels = bundle.manifest.labels
    encoder = Encoder(bundle.path("tokenizer.json"), 64, token_types=bundle.manifest.portable.token_types)
    return encoder.encode(read_examples(data, labels=labels), labels)


@pytest.fixture(params=CASES)
def bundle(request: pytest.FixtureRequest, tiny_bundle: OpenBundle) -> Iterator[Bundle]:
    yield tiny_bundle(request.param)


def everything(hidden: HiddenStates, encoded: Encoded) -> np.ndarray:
    indices = np.arange(len(encoded))
    found = hidden.attach(encoded, indices, collate(encoded, indices)).hidden
    assert found is not None and found.dtype == np.float32
    return found


def test_with_and_without_a_cache_the_same_bits(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    bare = everything(HiddenStates(prefix, Counting(bundle), None, "r"), encoded)
    assert np.abs(bare).max() > 0
    load = Counting(bundle)
    hidden = HiddenStates(prefix, load, RowDatabase(path, 1 << 26), "r", FillWidth(1, 48))
    filled = hidden.fill(encoded, QUIET)
    assert load.runs < load.texts if prefix.by_rows else load.runs == load.texts, "texts of one length share a run"
    assert filled.stored and filled.computed == load.texts == len(set(row_keys(encoded, prefix, "r")))
    hidden.close_prefix()
    np.testing.assert_array_equal(everything(hidden, encoded), bare)
    again = HiddenStates(prefix, load, RowDatabase(path, 1 << 26), "r")
    assert again.fill(encoded, QUIET).computed == 0
    np.testing.assert_array_equal(everything(again, encoded), bare)
    assert load.texts == filled.computed, "each text once, in whatever process"


def test_rows_do_not_depend_on_the_batch_and_padding_is_zero(bundle: Bundle, tiny_data: Path) -> None:
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    hidden = HiddenStates(prefix, Counting(bundle), None, "r")
    whole = everything(hidden, encoded)
    for index in (0, 5, 11):
        one = np.array([index])
        alone = hidden.attach(encoded, one, collate(encoded, one)).hidden
        assert alone is not None
        if prefix.pooled:
            np.testing.assert_array_equal(alone[0], whole[index])
            continue
        count = int(encoded.lengths[index])
        np.testing.assert_array_equal(alone[0, :count], whole[index, :count])
        assert not whole[index, count:].any()


@pytest.mark.parametrize(
    "name", [*CASES[:2], *(case.name for case in TINY if case.has_prefix and case.precision == "int8")]
)
def test_side_by_side_the_same_bits_in_order(name: str, tiny_bundle: OpenBundle) -> None:
    """Threads with a run each share weights, which are packed where they have 8 bits, and the arena; so do the texts of
    one length, of which runs take several where products scale by rows."""
    found, random = tiny_bundle(name), np.random.default_rng(0)
    prefix, lengths = prefix_of(found), np.sort(random.integers(2, 30, 24))[::-1]
    narrow = name.startswith(("albert", "electra"))  # whose tiny embeddings' product is left in float32
    assert prefix.by_rows == (found.manifest.portable.frozen_precision == "int8" and not narrow)
    texts = [(random.integers(5, 90, count), None) for count in lengths]
    expected = list(PrefixRunner(found, prefix, 3).texts(texts))
    assert len({row.tobytes() for row in expected}) > 1
    for width in (FillWidth(3), FillWidth(1, 64), FillWidth(3, 64)):
        for kind in {prefix.by_rows: prefix, False: replace(prefix, by_rows=False)}.values():
            beside = PrefixRunner(found, kind, 3, width=width)
            for row, other in zip(expected, beside.texts(texts), strict=True):
                np.testing.assert_array_equal(row, other)
            beside.close()
    ids, mask = np.zeros((24, 30), np.int64), np.arange(30) < lengths[:, None]
    ids[mask] = np.concatenate([text for text, _ in texts])
    order = random.permutation(24)
    batch = Batch(ids[order], mask[order].astype(np.int64), None, np.zeros(24, np.int64))
    rows = PrefixRunner(found, prefix, 3).batch(batch)
    for place, number in enumerate(order):
        own = rows[place] if prefix.pooled else rows[place, : lengths[number]]
        np.testing.assert_array_equal(own, expected[number])


def test_a_stop_between_texts_keeps_what_was_written(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    prefix, count = prefix_of(bundle), TEXTS_AT_ONCE + 20
    tokens = np.random.default_rng(0).integers(5, 90, 6 * count).astype(np.int32)
    starts = np.arange(count + 1, dtype=np.int64) * 6
    several = replace(
        encoded_by(bundle, tiny_data), tokens=tokens, starts=starts, type_ids=None, labels=np.zeros(count, np.int64)
    )
    hidden = HiddenStates(prefix, Counting(bundle), RowDatabase(path, 1 << 26), "r", FillWidth(2))
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == TEXTS_AT_ONCE + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hidden.fill(several, QUIET, stop)
    hidden.close_prefix()
    assert hidden.fill(several, QUIET).computed == count - TEXTS_AT_ONCE


def test_damaged_rows_are_computed_again(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    database = RowDatabase(path, 1 << 26)
    load = Counting(bundle)
    hidden = HiddenStates(prefix, load, database, "r", FillWidth(2))
    hidden.fill(encoded, QUIET)
    hidden.close_prefix()
    wanted, before = everything(hidden, encoded), load.texts
    victim = row_keys(encoded, prefix, "r")[3]
    database._connection.execute("UPDATE rows SET data = zeroblob(length(data)) WHERE key = ?", (victim,))
    database._connection.commit()
    np.testing.assert_array_equal(everything(hidden, encoded), wanted)
    assert load.texts == before + 1
    np.testing.assert_array_equal(everything(hidden, encoded), wanted)
    assert load.texts == before + 1, "and kept again"
    assert load.widths == [FillWidth(2), ALONE], "side by side while nothing else takes memory"


def test_a_bound_that_is_too_small_costs_time_alone(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    load = Counting(bundle)
    hidden = HiddenStates(prefix, load, RowDatabase(path, 0), "r")
    assert not hidden.fill(encoded, QUIET).stored
    bare = everything(HiddenStates(prefix, Counting(bundle), None, "r"), encoded)
    np.testing.assert_array_equal(everything(hidden, encoded), bare)


def test_a_full_cache_takes_new_texts_in_the_place_of_old_ones(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    rows = {bytes([n]) * 32: bytes(20_000) for n in range(1, 60)}
    database = RowDatabase(path, 1 << 20)
    while database.write(dict([rows.popitem()])):
        pass
    database.full, full = False, database.used_bytes()
    database.write({bytes(32): bytes((1 << 20) - full - 1000)})
    hidden = HiddenStates(prefix, Counting(bundle), RowDatabase(path, 1 << 20), "r")
    assert full > 0.9 * (1 << 20) and hidden.fill(encoded, QUIET).stored
    assert hidden.fill(encoded, QUIET).computed == 0
    assert database.used_bytes() <= 1 << 20 and database.known([bytes([30]) * 32]), "no more went than had to"


def test_no_stale_row_is_ever_used(bundle: Bundle, tiny_data: Path) -> None:
    """Another prefix, runtime, way of keeping, text, order of texts or types: another key."""
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    keys = set(row_keys(encoded, prefix, "r"))
    assert all(len(key) == 32 for key in keys)
    assert not keys & set(row_keys(encoded, replace(prefix, sha256="0" * 64), "r"))
    assert not keys & set(row_keys(encoded, replace(prefix, cache="fp16"), "r"))
    assert not keys & set(row_keys(encoded, prefix, "another runtime"))
    changed = replace(encoded, tokens=encoded.tokens + 1)
    assert not keys & set(row_keys(changed, prefix, "r"))
    typed = replace(encoded, type_ids=np.ones(len(encoded.tokens), np.int8))
    assert not keys & set(row_keys(typed, prefix, "r"))


def test_rows_of_texts_that_are_gone_go_too(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    database = RowDatabase(path, 1 << 26)
    hidden = HiddenStates(prefix, Counting(bundle), database, "r")
    hidden.fill(encoded, QUIET)
    end = int(encoded.starts[4])
    kept = replace(encoded, starts=encoded.starts[:5], tokens=encoded.tokens[:end], labels=encoded.labels[:4])
    if kept.type_ids is not None:
        kept = replace(kept, type_ids=kept.type_ids[:end])
    keys = row_keys(encoded, prefix, "r")
    assert hidden.forget_others(kept) == len(set(keys)) - len(set(keys[:4]))
    assert database.known(keys) == set(keys[:4])


def test_the_predicted_size_is_near_the_file(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    assert cache_bytes(encoded, prefix) >= sum((1 if prefix.pooled else int(n)) * prefix.width for n in encoded.lengths)


def test_a_stop_between_two_texts_keeps_what_was_computed(bundle: Bundle, tiny_data: Path, path: Path) -> None:
    class Stopped(Exception):
        pass

    prefix, encoded = prefix_of(bundle), encoded_by(bundle, tiny_data)
    load = Counting(bundle)

    def stop() -> None:
        if load.texts == 3:
            raise Stopped

    with pytest.raises(Stopped):
        HiddenStates(prefix, load, RowDatabase(path, 1 << 26), "r").fill(encoded, QUIET, stop)
    assert HiddenStates(prefix, load, RowDatabase(path, 1 << 26), "r").fill(encoded, QUIET).stored
