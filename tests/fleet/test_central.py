"""Central evaluation: a child measures the fleet's learners as `edge-far eval` would; what fails is told."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edge_far.bundles.arrays import read_learners
from edge_far.cli import main
from edge_far.errors import Unavailable
from edge_far.fleet.server.central import evaluated

pytestmark = pytest.mark.device


def test_it_is_what_eval_says_of_these_learners(
    test_bundles: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = test_bundles / "tiny-fp32"
    learners = read_learners(bundle / "learners.safetensors")
    as_exported = evaluated(bundle, learners, tiny_data, Path(sys.executable))
    moved = {name: array + np.float32(0.5) for name, array in learners.items()}
    found = evaluated(bundle, moved, tiny_data, Path(sys.executable))
    assert found["loss"] != as_exported["loss"] and found["examples"] == as_exported["examples"] > 0
    with pytest.raises(Unavailable, match="status 66"):
        evaluated(bundle, learners, tmp_path / "nothing.jsonl", Path(sys.executable))
    with pytest.raises(Unavailable, match="does not start"):
        evaluated(bundle, learners, tiny_data, tmp_path / "python")
    # The same file by hand; and a file of other learners is refused.
    words = ["eval", str(bundle), "--data", str(tiny_data), "--json", "-q", "--learners"]
    assert main([*words, str(bundle / "learners.safetensors")]) == 0
    assert f'"loss": {as_exported["loss"]}' in capsys.readouterr().out
    assert main([*words, str(test_bundles / "bert-head-5" / "learners.safetensors")]) == 65
    assert main([*words, str(tmp_path / "nothing")]) == 66
