"""A row of the plan matrix says what the plan itself says, board by board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import Manifest
from edge_far.device.board.memory import MIB
from edge_far.device.cache.hidden import cache_bytes, longest_rows_bytes
from edge_far.device.planning.matrix import Wish, every_length, plan_row
from edge_far.device.planning.parts import RUNTIME_MIB
from edge_far.device.planning.plan import make_plan
from edge_far.device.planning.work import graph_flops
from edge_far.profile.document import Profile, load_profile
from edge_far.profile.run_sections import Memory
from edge_far.texts.encode import Encoded

WISH = Wish(every_length(32, 4), "adamw")


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Callable[[str], Bundle]) -> Manifest:
    return tiny_bundle("bert-top1-5").manifest


def board(budget_mib: int) -> Profile:
    return replace(load_profile("rpi4-2gb"), name="board", memory=Memory(budget_mib=budget_mib))


def test_a_board_that_fits_is_told_its_plan(manifest: Manifest) -> None:
    row, plan = plan_row(manifest, "top-1", board(900), WISH), make_plan(manifest, WISH.shapes, 900, RUNTIME_MIB)
    assert row.fits and row.needed_mib is None
    assert (row.micro_batch, row.step_graph) == (plan.micro_batch, plan.variants[32])
    assert row.predicted_peak_mib == plan.predicted_peak_mib and row.longest == 32 and row.batch_size == 4


def test_a_board_that_does_not_fit_is_told_what_would_do(manifest: Manifest) -> None:
    row = plan_row(manifest, "top-1", board(64), WISH)
    assert not row.fits and row.micro_batch is row.step_graph is row.predicted_peak_mib is row.step_seconds is None
    assert row.needed_mib is not None and plan_row(manifest, "top-1", board(row.needed_mib), WISH).fits
    assert not plan_row(manifest, "top-1", board(row.needed_mib - 4), WISH).fits
    assert row.step_gflop == plan_row(manifest, "top-1", board(900), WISH).step_gflop > 0  # the plain step's


def test_disk_counts_the_files_the_checkpoints_and_the_cache(manifest: Manifest) -> None:
    row = plan_row(manifest, "top-1", board(900), WISH)
    assert row.bundle_mib * MIB == pytest.approx(sum(file.bytes for file in manifest.files.values()))
    # Three checkpoints of learners and AdamW's moments (12 bytes a number), the best learners and the result (4).
    assert row.run_mib * MIB == pytest.approx((3 * 12 + 2 * 4) * manifest.trained_parameters)
    assert row.cache_mib is None and row.disk_mib == row.bundle_mib + row.run_mib
    lengths = [5, 9, 30]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    texts = Encoded(np.zeros(sum(lengths), np.int32), starts, None, np.zeros(3, np.int64), 0, 0, 32)
    with_texts = plan_row(manifest, "top-1", board(900), replace(WISH, texts=texts))
    assert manifest.portable.prefix is not None and with_texts.cache_mib is not None
    assert with_texts.cache_mib * MIB == cache_bytes(texts, manifest.portable.prefix)
    assert with_texts.disk_mib == pytest.approx(row.disk_mib + with_texts.cache_mib)


def test_a_thousand_long_texts_take_what_such_texts_take(manifest: Manifest) -> None:
    prefix = manifest.portable.prefix
    assert prefix is not None
    texts = Encoded(np.zeros(96, np.int32), np.arange(0, 97, 32), None, np.zeros(3, np.int64), 0, 0, 32)
    assert longest_rows_bytes(3, 32, prefix) == cache_bytes(texts, prefix)


def test_work_is_the_same_on_every_board_and_grows_with_the_batch(manifest: Manifest) -> None:
    rows = [plan_row(manifest, "top-1", board(budget), WISH) for budget in (400, 4000)]
    assert len({row.step_gflop for row in rows}) == 1
    double = plan_row(manifest, "top-1", board(4000), Wish(every_length(32, 8), "adamw"))
    assert double.step_gflop == pytest.approx(2 * rows[0].step_gflop)
    prefix = manifest.portable.prefix
    assert prefix is not None and rows[0].fill_gflop == graph_flops(prefix.graph.costs, 1, 32) / 1e9 > 0


def test_no_frozen_blocks_no_fill(tiny_bundle: Callable[[str], Bundle]) -> None:
    row = plan_row(tiny_bundle("tiny-int8").manifest, "far-10", board(900), WISH)
    assert row.fill_gflop is None and row.cache_mib_1000 is None
    document = row.to_json()
    assert document["disk_mib"] == pytest.approx(row.disk_mib, abs=1e-4) and document["step_seconds"] is None
