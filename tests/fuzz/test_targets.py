"""Some hostile inputs for every reader of files, the same ones each time; scripts/fuzz.py runs many more."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edge_far.bundles.bundle import Bundle
from tests.fuzz.targets.base import Target
from tests.fuzz.targets.registry import targets_here

EXAMPLES = 10
KINDS = targets_here()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("fuzz")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(tempfile, "tempdir", str(folder / "cache"))
        yield folder


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_hostile_inputs_end_well(kind: type[Target], place: Path, tiny_bundle: Callable[[str], Bundle]) -> None:
    target = kind(place, tiny_bundle("tiny-fp32").root)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],  # to make a failing input smaller takes minutes here
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def one(chance: Random) -> None:
        assert target.problem(target.make(chance)) is None

    one()
