"""The products of `doctor --bench`: right graphs (onnx is the oracle), right results (NumPy is), and an end in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_far.device.planning.one_product import FLOAT32, INT8, product_model
from edge_far.json_file import parse_json

ROWS, INNER, COLUMNS = 5, 300, 7  # 300: two bytes as a varint


@pytest.mark.host
@pytest.mark.parametrize("kind", [FLOAT32, INT8])
def test_the_bytes_are_the_model_that_onnx_reads(kind: str) -> None:
    import onnx

    model = onnx.load_from_string(product_model(kind, ROWS, INNER, COLUMNS))
    onnx.checker.check_model(model, full_check=kind == FLOAT32)  # onnx does not know com.microsoft's shapes
    assert model.ir_version == 10
    assert {each.domain: each.version for each in model.opset_import} == {"": 17, "com.microsoft": 1}
    (node,) = model.graph.node
    shapes = {
        value.name: (value.type.tensor_type.elem_type, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    }
    f32, i8 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT8
    assert shapes.pop("left") == (f32, [ROWS, INNER]) and shapes.pop("out") == (f32, [ROWS, COLUMNS])
    if kind == FLOAT32:
        assert (node.op_type, node.domain, list(node.input)) == ("Gemm", "", ["left", "right"])
        (attribute,) = node.attribute
        assert (attribute.name, onnx.helper.get_attribute_value(attribute)) == ("transB", 1)
        assert shapes == {"right": (f32, [COLUMNS, INNER])}
    else:
        assert (node.op_type, node.domain) == ("DynamicQuantizeMatMul", "com.microsoft")
        assert shapes == {"right": (i8, [INNER, COLUMNS]), "scales": (f32, [COLUMNS])}


@pytest.mark.device
def test_the_products_are_right() -> None:
    import onnxruntime as ort

    chance = np.random.default_rng(1)
    left = chance.standard_normal((ROWS, INNER)).astype(np.float32)
    right = chance.integers(-127, 128, (INNER, COLUMNS)).astype(np.int8)
    scales = chance.uniform(0.5, 2, COLUMNS).astype(np.float32)

    def run(kind: str, **feeds: np.ndarray) -> Any:
        model = product_model(kind, ROWS, INNER, COLUMNS)
        return ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(["out"], feeds)[0]

    weights = right * scales
    by_gemm = run(FLOAT32, left=left, right=np.ascontiguousarray(weights.T))
    np.testing.assert_allclose(by_gemm, left @ weights, rtol=1e-4, atol=0.05)
    # DynamicQuantizeLinear of the ONNX specification, on the left operand as a whole.
    step = np.float32((max(left.max(), 0) - min(left.min(), 0)) / 255)
    zero = np.round(-min(left.min(), 0) / step)
    rounded = (np.clip(np.round(left / step) + zero, 0, 255) - zero) * step
    by_int8 = run(INT8, left=left, right=right, scales=scales)
    np.testing.assert_allclose(by_int8, rounded @ weights, rtol=1e-4, atol=0.05)


@pytest.mark.device
def test_figures_of_every_product_and_an_end_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_far.device.planning import basic_speed

    monkeypatch.setattr(basic_speed, "PRODUCTS", ((8, 16, 32),))
    out = tmp_path / "measured.json"
    assert basic_speed.main(["1", "16", "30", str(out)]) == 0
    found = parse_json(out.read_bytes())
    assert found["threads"] == 1 and found["copy_mib"] == 2 and found["copy_gb_s"] > 0
    assert [each["kind"] for each in found["products"]] == [FLOAT32, INT8]
    for each in found["products"]:
        assert each["runs"] == 8
        assert each["gflop_s"] == pytest.approx(2e-9 * 8 * 16 * 32 / each["seconds"], abs=0.006)
    assert basic_speed.measure_basics(1, 16, 0.0)["products"] == []
