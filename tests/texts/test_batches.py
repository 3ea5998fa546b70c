"""Batches: every example once, the same order for the same seed, little padding, and exact padding."""

import hashlib

import numpy as np
import pytest

from edge_far.texts.batches import collate, padded_length, plan_epoch, split_batch
from edge_far.texts.encode import Encoded


def encoded_of(lengths: list[int], *, max_seq_len: int = 64, type_ids: bool = True) -> Encoded:
    total = sum(lengths)
    return Encoded(
        tokens=np.arange(1, total + 1, dtype=np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        type_ids=(np.arange(total) % 2).astype(np.int8) if type_ids else None,
        labels=np.arange(len(lengths), dtype=np.int64),
        truncated=0,
        pad_id=99,
        max_seq_len=max_seq_len,
    )


def test_padded_length() -> None:
    assert [padded_length(n) for n in (0, 1, 7, 8, 9, 16, 17)] == [8, 8, 8, 8, 16, 16, 24]
    assert padded_length(17, 16) == 32


@pytest.mark.parametrize(("count", "batch_size"), [(0, 4), (1, 4), (4, 4), (1003, 16), (5000, 7), (10, 1)])
def test_every_example_exactly_once(count: int, batch_size: int) -> None:
    lengths = np.random.default_rng(1).integers(3, 60, count)
    batches = plan_epoch(lengths, batch_size, seed=3, epoch=2)
    assert sorted(int(index) for batch in batches for index in batch) == list(range(count))
    assert sum(len(batch) != batch_size for batch in batches) == (count % batch_size != 0)
    assert len(batches) == -(-count // batch_size)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(1).integers(3, 60, 500)
    plans = {key: np.concatenate(plan_epoch(lengths, 8, *key)).tolist() for key in [(0, 0), (0, 1), (1, 0)]}
    assert len({tuple(plan) for plan in plans.values()}) == 3
    np.random.seed(5)
    assert np.concatenate(plan_epoch(lengths, 8, 0, 0)).tolist() == plans[0, 0]


def test_order_is_the_same_on_every_machine() -> None:
    lengths = np.arange(1000) * 7 % 61
    order = np.concatenate(plan_epoch(lengths, 16, seed=2022, epoch=1)).astype("<i8")
    assert (
        hashlib.sha256(order.tobytes()).hexdigest()
        == "08cc678784befa35b9871eac4c0588195cb4099ed3fc722d0422083373679ee0"
    )


def test_similar_lengths_go_together() -> None:
    lengths = np.random.default_rng(1).integers(3, 65, 4096)
    random = np.random.default_rng(2).permutation(4096).reshape(-1, 16)
    grouped = sum(len(batch) * padded_length(int(lengths[batch].max())) for batch in plan_epoch(lengths, 16, 0, 0))
    shuffled = sum(len(batch) * padded_length(int(lengths[batch].max())) for batch in random)
    assert grouped < 1.2 * lengths.sum() < 1.7 * lengths.sum() < shuffled


def test_batches_do_not_come_in_order_of_length() -> None:
    lengths = np.random.default_rng(1).integers(3, 65, 4096)
    means = np.array([lengths[batch].mean() for batch in plan_epoch(lengths, 16, 0, 0)])
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_split_batch_fits_the_plan_and_loses_nothing() -> None:
    lengths = np.random.default_rng(1).integers(3, 130, 300)
    indices = np.random.default_rng(2).permutation(300)[:64]
    parts = split_batch(lengths, indices, lambda length: max(1, 256 // length))
    assert sorted(np.concatenate(parts).tolist()) == sorted(indices.tolist())
    longest = [padded_length(int(lengths[part].max())) for part in parts]
    assert all(len(part) <= max(1, 256 // length) for part, length in zip(parts, longest, strict=True))
    assert longest == sorted(longest, reverse=True)
    assert sum(len(part) * length for part, length in zip(parts, longest, strict=True)) < 64 * longest[0] * 0.7


def test_split_batch_edges() -> None:
    lengths = np.array([5, 5, 5])
    (whole,) = split_batch(lengths, np.array([2, 0, 1]), lambda length: 100)
    assert whole.tolist() == [2, 0, 1]  # equal lengths keep the batch's order
    assert split_batch(lengths, np.array([], np.int64), lambda length: 1) == []
    with pytest.raises(ValueError, match="no row of 8 tokens"):
        split_batch(lengths, np.array([0]), lambda length: 0)


def test_collate_pads_on_the_right() -> None:
    batch = collate(encoded_of([3, 9, 2]), np.array([2, 0]))
    assert batch.input_ids.tolist() == [[13, 14, *[99] * 6], [1, 2, 3, *[99] * 5]]
    assert batch.attention_mask.tolist() == [[1, 1, *[0] * 6], [1, 1, 1, *[0] * 5]]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.tolist() == [[0, 1, *[0] * 6], [0, 1, 0, *[0] * 5]]
    assert batch.labels.tolist() == [2, 0]
    arrays = (batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.labels)
    assert all(array.dtype == np.int64 and array.flags.c_contiguous for array in arrays)
    assert collate(encoded_of([3], type_ids=False), np.array([0])).token_type_ids is None


def test_collate_length() -> None:
    encoded = encoded_of([3, 9], max_seq_len=12)
    assert collate(encoded, np.array([0, 1])).input_ids.shape == (2, 12)  # not 16: the model has 12 positions
    assert collate(encoded, np.array([0])).input_ids.shape == (1, 8)
    assert collate(encoded, np.array([0]), length=5).input_ids.shape == (1, 5)
    with pytest.raises(ValueError, match="9 tokens does not fit 8"):
        collate(encoded, np.array([1]), length=8)
