"""How many tokens a text may have: asked for, told, or found by trying; of each architecture with 64 positions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edge_far.bundles.arrays import read_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.reading_length import reading_length
from edge_far.device.release import ReleasedModel
from edge_far.errors import ConfigError, DataError
from edge_far.texts.batches import Batch


@pytest.mark.parametrize("name", ["bert-r10-2", "tiny-fp32", "roberta-r10-2"])
def test_the_positions_of_a_model_are_found(name: str, tiny_bundle: Callable[[str], Bundle]) -> None:
    bundle = tiny_bundle(name)
    model = ReleasedModel(bundle, read_arrays(bundle.path("learners.safetensors")), 1)
    assert reading_length(model.logits, None, None) == 64
    assert reading_length(model.logits, 64, None) == reading_length(model.logits, 64, 32) == 64
    for known, hint in ((None, "try 128 or less"), (32, "its texts had at most 32")):
        with pytest.raises(ConfigError, match=rf"--max-seq-len: the model does not read 65 tokens .{hint}"):
            reading_length(model.logits, 65, known)


def never(batch: Batch) -> np.ndarray:
    raise DataError("no")


def test_what_is_known_is_not_tried() -> None:
    assert reading_length(never, None, 24) == 24
    assert reading_length(never, 16, 24) == 16
    with pytest.raises(ConfigError, match="does not say how many tokens it reads"):
        reading_length(never, None, None)
