"""benchmarks/operator_time.py: how operators' times are added up."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "operator_time.py"


@pytest.fixture(name="script")
def _script(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("operator_time", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "operator_time", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_a_profile_is_cut_into_runs(script: Any) -> None:
    def node(ts: int, operator: str, dur: int, kind: str = "kernel_time") -> dict[str, Any]:
        return {"cat": "Node", "name": f"n_{kind}", "ts": ts, "dur": dur, "args": {"op_name": operator}}

    events = [
        {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 5},
        node(11, "Gemm", 100),
        node(12, "Gemm", 7, "fence_before"),
        node(111, "Add", 20),
        node(140, "Gemm", 3),
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 150},
        node(201, "Add", 40),
        {"cat": "Session", "name": "model_run", "ts": 200, "dur": 50},
    ]
    first, second = script.operators_by_run(events)
    assert first == pytest.approx({"Gemm": 103e-6, "Add": 20e-6})
    assert second == pytest.approx({"Add": 40e-6})


def test_products_and_the_rest_are_medians_over_steps(script: Any) -> None:
    steps = [
        {"wall": 10.0, "operators": {"Gemm": 1.0, "Attention": 2.0, "Add": 1.0, script.OPTIMIZER: 0.5}},
        {"wall": 12.0, "operators": {"Gemm": 1.0, "Attention": 4.0, "Add": 9.0, script.OPTIMIZER: 0.5}},
        {"wall": 11.0, "operators": {"Gemm": 1.0, "Attention": 3.0, "Add": 2.0, script.OPTIMIZER: 0.5}},
    ]
    row = script.summarise("edge-far", "int8", steps)
    assert (row.products, row.rest, row.wall) == (4.0, 2.5, 11.0)
    assert (row.method, row.precision) == ("far-10", "int8")


@pytest.mark.parametrize(
    ("engine", "operator", "product"),
    [
        ("torch", "aten::addmm", True),
        ("torch", "aten::_scaled_dot_product_flash_attention_for_cpu_backward", True),
        ("torch", "aten::_softmax", False),
        ("torch", "aten::addcmul", False),
        ("edge-far", "DynamicQuantizeMatMul", True),
        ("edge-far", "DynamicQuantizeLinear", False),
    ],
)
def test_what_counts_as_a_product(script: Any, engine: str, operator: str, product: bool) -> None:
    assert script.is_product(engine, operator) is product


def test_the_table_compares_each_pair_of_engines(script: Any) -> None:
    torch = script.Row("torch", "full (sdpa)", "fp32", 3.0, 1.0, 4.1, (0.9, 1.2))
    ours = script.Row("edge-far", "far-10", "int8", 0.5, 0.5, 1.1, (0.5, 0.5))
    lines = script.as_markdown([torch, ours]).splitlines()
    assert lines[2] == "| torch | full (sdpa) | fp32 | 3.000 | 1.000 | 0.900-1.200 | 25% | 4.000 | 4.100 |"
    assert lines[-1].endswith("against torch full (sdpa): 50% less (aim 47%: met)")
    assert "MISSED" in script.as_markdown([torch, script.Row("edge-far", "far-10", "int8", 0.5, 0.6, 1.1, (0.6, 0.6))])


def test_rounds_become_medians_and_a_range(script: Any) -> None:
    rows = [
        script.Row("torch", "full (sdpa)", "fp32", products, rest, wall, (rest, rest))
        for products, rest, wall in ((2.0, 0.3, 2.3), (2.2, 0.1, 2.4), (2.1, 0.2, 2.2))
    ]
    row = script.over_rounds(rows)
    assert (row.products, row.rest, row.wall, row.rest_range) == (2.1, 0.2, 2.3, (0.1, 0.3))
    assert "| 2.100 | 0.200 | 0.100-0.300 | 9% | 2.300 | 2.300 |" in script.as_markdown([row])
