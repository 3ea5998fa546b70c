"""Every operator of every tiny bundle's graphs has a case for the boards' cores."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("onnx")
import onnx

from tests.aarch64.operator_cases import all_cases
from tests.tiny_cases import CASES

pytestmark = pytest.mark.host


def test_no_operator_is_left_out(test_bundles: Path) -> None:
    used: dict[tuple[str, str], str] = {}
    for case in CASES:
        for path in sorted((test_bundles / case.name / "portable").glob("*.onnx")):
            graph = onnx.load(path, load_external_data=False).graph
            used |= {(node.domain, node.op_type): f"{case.name}/{path.name}" for node in graph.node}
    assert len(used) > 60
    probed = {(case.domain, case.operator) for case in all_cases()}
    assert {operator: where for operator, where in used.items() if operator not in probed} == {}
