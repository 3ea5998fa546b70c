from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from edge_far.errors import StorageError
from edge_far.far.heads import find_attention_blocks
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.prime import Measured, PrimingResult
from edge_far.far.report import selection_report, write_selection_report
from edge_far.far.select import select_learners

pytestmark = pytest.mark.host


@pytest.fixture
def primed(tiny_model):
    metrics = (np.arange(40.0), np.arange(40.0)[::-1].copy())
    priming = PrimingResult(metrics, 0.31, 0.1, 50, 2.5, 1.6, 1.4)
    return select_learners("far", 0.1, find_ffn_blocks(tiny_model("bert")), metrics), priming


def test_the_report_says_what_was_chosen_and_why(primed, tmp_path):
    path = tmp_path / "selection.json"
    report = write_selection_report(path, *primed)
    assert json.loads(path.read_text()) == report
    assert [entry.name for entry in tmp_path.iterdir()] == ["selection.json"]
    assert (report["method"], report["retention"]) == ("far", 0.1)
    assert report["priming"]["split_half_overlap"] == 0.31
    assert report["priming"]["chance"] == 0.1
    first, second = report["blocks"]
    assert (first["learners"], second["learners"]) == ([36, 37, 38, 39], [0, 1, 2, 3])
    assert (first["count"], first["threshold"]) == (4, 36)
    assert first["metric"] == list(range(40))
    assert first["quantiles"]["0.5"] == 19.5
    assert (first["quantiles"]["0"], first["quantiles"]["1"]) == (0, 39)
    assert report["attention"] is None
    assert first["captured"] == pytest.approx((36 + 37 + 38 + 39) / sum(range(40)), rel=1e-6)


@pytest.mark.parametrize(("method", "retention"), [("random", 0.1), ("far", 0)])
def test_what_was_not_measured_or_chosen_is_null(primed, tiny_model, method, retention):
    metrics = primed[1].metrics
    selection = select_learners(method, retention, find_ffn_blocks(tiny_model("bert")), metrics)
    report = selection_report(selection)
    json.dumps(report, allow_nan=False)
    assert report["priming"] is None
    assert report["blocks"][0]["threshold"] is None
    assert (report["blocks"][0]["metric"] is None) == (method == "random")


def test_a_path_that_cannot_be_written(primed, tmp_path):
    with pytest.raises(StorageError, match=r"selection\.json: cannot write: No such file or directory"):
        write_selection_report(tmp_path / "missing" / "selection.json", *primed)


def test_the_report_tells_heads_alike(primed, tiny_model):
    selection, priming = primed
    metrics = (np.array([3.0, 1.0]), np.array([2.0, 6.0]))
    heads = select_learners("far", 0.5, find_attention_blocks(tiny_model("bert")), metrics)
    priming = replace(priming, heads=Measured(metrics, 0.75, 0.5))
    report = selection_report(replace(selection, heads=heads), priming)["attention"]
    assert (report["retention"], report["split_half_overlap"], report["chance"]) == (0.5, 0.75, 0.5)
    assert [(block["learners"], block["captured"]) for block in report["blocks"]] == [([0], 0.75), ([1], 0.75)]
