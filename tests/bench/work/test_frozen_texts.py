"""Texts through a bundle's prefix and the activation cache, as batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_far.bench.work.frozen_texts import FrozenTexts
from edge_far.bench.work.task import batches, micro_batches
from edge_far.bundles.bundle import Bundle
from edge_far.device.engine.backend import FillWidth
from edge_far.device.engine.prefix import PrefixRunner
from tests.bench.work.test_task import TASK

pytestmark = pytest.mark.device


@pytest.mark.parametrize("name", ["bert-top1-5", "roberta-head-5-mean"])
def test_a_batch_has_the_hidden_states_that_the_prefix_makes(tiny_bundle: Callable[[str], Bundle], name: str) -> None:
    bundle = tiny_bundle(name)
    prefix = bundle.manifest.portable.prefix
    assert prefix is not None and prefix.cache == "fp32"
    data = batches(replace(TASK, length=16), 100, 5)
    runner = PrefixRunner(bundle, prefix, 1)
    with FrozenTexts(bundle, data, 2, FillWidth(2), 1.0) as texts:
        folder = Path(texts._folder.name)
        for number in range(len(data)):
            texts.fill(number)
        texts.end_fill()
        texts._hidden._load = _never  # a step after the fill reads, and computes nothing
        for number, batch in enumerate(data):
            for found, asked in zip(texts.micro_batches(number, 3), micro_batches(batch, 3), strict=True):
                assert found.hidden is not None
                np.testing.assert_array_equal(found.hidden, runner.batch(asked))
                np.testing.assert_array_equal(found.input_ids, asked.input_ids)
                np.testing.assert_array_equal(found.labels, asked.labels)
    assert not folder.exists()


def _never() -> PrefixRunner:
    raise AssertionError("the prefix was loaded again")
