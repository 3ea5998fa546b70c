"""Training on cached activations: whatever happens to the cache, the result has the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_far.bundles.bundle import Bundle
from tests.faults.processes import edge_far, learners_of, succeed

pytestmark = pytest.mark.device
FILE = "hidden.sqlite3"
NO_CACHE = """memory: {budget_mib: 400}
compute: {threads: 1}
pressure: {min_available_mib: 0}
storage: {cache_mib: 0}
"""


@pytest.mark.parametrize("name", ["distilbert-top1-5-int8", "bert-head-5"])
def test_the_result_does_not_depend_on_the_cache(
    name: str, tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "none.yaml"
    profile.write_text(NO_CACHE)
    bundle = tiny_bundle(name).root
    arguments = ["train", bundle, "--train", tiny_data, "--eval", tiny_data, "--epochs", "2", "--no-probe"]
    cache = tmp_path / "cache"
    first = succeed(*arguments, "--out", tmp_path / "first", "--cache", cache)
    assert first["plan"]["fill_peak_mib"] > 0 and first["predicted"] is None
    expected = learners_of(tmp_path / "first")

    succeed(*arguments, "--out", tmp_path / "warm", "--cache", cache)
    assert learners_of(tmp_path / "warm") == expected
    succeed(*arguments, "--out", tmp_path / "none", "--cache", tmp_path / "unused", "--profile", profile)
    assert learners_of(tmp_path / "none") == expected and not (tmp_path / "unused").exists()

    file = cache / FILE
    sound = file.read_bytes()
    for number, damaged in enumerate((sound[: len(sound) // 2], b"no database", sound[:-3000] + os.urandom(3000))):
        file.write_bytes(damaged)
        succeed(*arguments, "--out", tmp_path / f"damaged-{number}", "--cache", cache)
        assert learners_of(tmp_path / f"damaged-{number}") == expected


def test_a_cache_that_cannot_be_opened_costs_a_warning(
    tiny_bundle: Callable[[str], Bundle], tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    bundle = tiny_bundle("bert-top1-5").root
    arguments = ["train", bundle, "--train", tiny_data, "--max-steps", "2", "--no-probe", "--out", tmp_path / "run"]
    done = edge_far(*arguments, "--cache", tmp_path / "file" / "below")
    assert done.returncode == 0 and "the activation cache cannot be opened" in done.stderr


def test_plan_tells_of_both_phases(tiny_bundle: Callable[[str], Bundle], tiny_data: Path) -> None:
    bundle = tiny_bundle("bert-top1-5").root
    document = succeed("plan", bundle, "--train", tiny_data, "--no-probe")
    assert document["fill_peak_mib"] > 0 and document["cache_mib"] > 0 and document["fill_seconds"] is None
    shown = edge_far("plan", bundle, "--train", tiny_data, "--no-probe").stdout
    assert "frozen blocks, each text once: peak" in shown
    assert edge_far("plan", bundle, "--train", tiny_data, "--no-probe", "--budget-mib", "20").returncode == 78
