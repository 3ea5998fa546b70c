"""Rows and ratios from made-up measurements, and the table of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_far.bench.cases import Case, method_named
from edge_far.bench.summary import make_ratios, make_row
from edge_far.bench.table import as_markdown
from edge_far.bench.work.counts import Counts
from edge_far.bench.work.task import Measurement

FULL, FAR, TOP = (method_named(name, 0.1) for name in ("full", "far", "top-2-heads"))


def measurement(steps: list[float], peak: float, predicted: float | None = None) -> Measurement:
    return Measurement(
        steps, [0.9 * s for s in steps], [0.1 * s for s in steps], peak, predicted, 1000, "engine 1", 0.7
    )


def fake_rows() -> list[dict[str, Any]]:
    measured = [
        (Case("torch", FULL, "fp32", "train", "sdpa"), 3.0, 2400.0, None),
        (Case("torch", FULL, "fp32", "train", "eager"), 4.0, 2000.0, None),
        (Case("torch", FULL, "fp32", "frozen", "sdpa"), 2.4, 2000.0, None),
        (Case("ort-training", FULL, "fp32", "frozen"), 1.5, 1800.0, None),
        (Case("edge-far", FULL, "fp32", "frozen"), 1.2, 1200.0, 900.0),
        (Case("edge-far", FAR, "int8", "frozen"), 0.6, 800.0, 500.0),
        (Case("edge-far", FAR, "fp32", "frozen"), 0.8, 1000.0, 600.0),
        (Case("edge-far", TOP, "int8", "frozen"), 0.2, 400.0, 100.0),
        (Case("edge-far", TOP, "int8", "frozen", phase="fill"), 0.1, 200.0, 50.0),
    ]
    return [
        make_row(case, [measurement([s], p)], 16, Counts(None if moved is None else 1e6 * moved, moved), "adamw")
        for case, s, p, moved in measured
    ]


def test_a_row_holds_medians_over_all_rounds() -> None:
    rounds = [measurement([1.0, 2.0, 3.0], 100, 90), measurement([4.0, 5.0], 120, 95)]
    row = make_row(Case("edge-far", FAR, "int8", "frozen"), rounds, 6, Counts(2e9, 1e6), "adamw8bit")
    assert (row["engine"], row["method"], row["precision"], row["retention"]) == ("edge-far", "far-10", "int8", 0.1)
    assert row["optimizer"] == "adamw8bit"
    assert row["step_seconds"] == 3.0 and row["examples_per_second"] == 2.0
    assert row["step_seconds_spread"] == 2.0  # the middle half of 1, 2, 3, 4, 5 lies between 2 and 4
    assert row["step_seconds_rounds"] == [2.0, 4.5]
    assert row["forward_backward_seconds"] == pytest.approx(2.7) and row["optimizer_seconds"] == pytest.approx(0.3)
    assert row["peak_rss_mib"] == 120 and row["predicted_peak_mib"] == 95
    assert row["bytes_moved"] == 1_000_000 and row["trained_parameters"] == 1000
    assert row["flops"] == 2_000_000_000
    assert (row["phase"], row["rung"], row["heads"]) == ("step", "far", False)


def test_what_an_engine_counted_itself_is_taken() -> None:
    counted = replace(measurement([1.0], 100), flops=5e9, loss=None)
    row = make_row(Case("torch", FULL, "fp32", "train", "sdpa"), [counted], 1, Counts(), "adamw")
    assert row["flops"] == 5_000_000_000 and row["bytes_moved"] is None and row["loss"] is None


def test_ratios_take_the_better_attention_of_torch() -> None:
    ratios = make_ratios(fake_rows(), "far-10")
    assert ratios["step_torch_full_over_edge_far_int8"] == 5.0
    assert ratios["peak_torch_full_over_edge_far_int8"] == 2.5
    assert ratios["step_torch_full_frozen_embeddings_over_edge_far_int8"] == 4.0
    assert ratios["step_torch_full_over_edge_far_fp32"] == 3.75
    assert ratios["step_ort_training_full_over_edge_far_int8"] == 2.5
    assert ratios["step_edge_far_full_frozen_embeddings_over_edge_far_int8"] == 2.0
    assert ratios["bytes_edge_far_full_frozen_embeddings_over_edge_far_int8"] == 1.8
    assert ratios["bytes_edge_far_full_frozen_embeddings_over_edge_far_fp32"] == 1.5


def test_a_rung_is_compared_with_pytorch_and_with_far() -> None:
    ratios = make_ratios(fake_rows(), "far-10")
    assert ratios["step_torch_full_over_edge_far_top_2_heads_int8"] == 15.0
    assert ratios["step_edge_far_far_10_over_edge_far_top_2_heads_int8"] == 3.0
    assert ratios["peak_edge_far_far_10_over_edge_far_top_2_heads_int8"] == 2.0
    assert ratios["flops_edge_far_far_10_over_edge_far_top_2_heads_int8"] == 5.0
    assert "flops_torch_full_over_edge_far_top_2_heads_int8" not in ratios  # nobody counted the first


def test_ratios_of_missing_rows_are_missing() -> None:
    rows = [row for row in fake_rows() if row["engine"] == "edge-far"]
    assert not any("torch" in name or "ort" in name for name in make_ratios(rows, "far-10"))
    assert make_ratios([], "far-10") == {}
    assert not any(name.startswith("bytes_torch") for name in make_ratios(fake_rows(), "far-10"))


def test_the_table_names_rows_ratios_and_what_is_left_out() -> None:
    rows = fake_rows()
    document = {
        **{"model": "tiny", "batch": 16, "length": 64, "micro_batch": 16, "threads": 2, "dropout": False},
        "pooling": "cls",
        **{"steps": 5, "warmup": 2, "rounds": 2, "rows": rows, "ratios": make_ratios(rows, "far-10")},
        "machine": {"cpu": "a cpu", "cores": 2, "load_average": 0.1, "date": "today", "edge_far": "1"},
        "left_out": [{"row": "ort-training far-10 fp32", "reason": "no wheel"}],
    }
    lines = as_markdown(document).splitlines()
    assert (
        "| edge-far | far-10 | int8 | frozen | adamw | 0.600 | 0.000 | 0.50 | 0 | 0.540 | 0.060 | 26.7 | 800 |  | "
        "1,000 | engine 1 |" in lines
    )
    assert any(
        line.startswith("| torch (sdpa) | full | fp32 | trained | adamw | 3.000 | 0.000 | - | - |") for line in lines
    )
    assert any(line.startswith("| edge-far | top-2-heads, fill | int8 |") for line in lines)
    assert "| torch full / edge far int8 | 5.00 | 2.50 |  |  |" in lines
    assert "| edge far far 10 / edge far top 2 heads int8 | 3.00 | 2.00 | 5.00 | 5.00 |" in lines
    said = [line for line in lines if line.startswith("Ratios of step time and of peak memory are this machine's")]
    assert len(said) == 1 and "(a cpu)" in said[0] and "counts, the same on every machine" in said[0]
    assert any("comes from the activation cache" in line for line in lines)
    assert "- ort-training far-10 fp32: no wheel" in lines
    tables = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in tables} == {17, 6}
