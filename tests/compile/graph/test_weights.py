"""The file of constants: equal tensors once, pages not shared, regions that can be overwritten alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx_ir as ir

from edge_far.compile.graph.weights import ALIGNMENT, WeightFile
from tests.tiny_graphs import make_graph, random_array

pytestmark = pytest.mark.host

A, B = random_array(0, 40, 30), random_array(1, 40, 30)


def read(path: Path, offset: int, length: int, dtype: str, shape: list[int]) -> np.ndarray:
    return np.frombuffer(path.read_bytes()[offset : offset + length], dtype).reshape(shape)


def test_equal_tensors_share_a_region_unless_asked_not_to(tmp_path: Path) -> None:
    weights = WeightFile(tmp_path / "weights.bin")
    first, again, other = weights.add(A), weights.add(A.copy()), weights.add(B)
    alone, second = weights.add_unshared(A), weights.add_unshared(A)
    weights.close()
    assert first == again
    regions = [first, other, alone, second]
    assert len({region.offset for region in regions}) == 4
    assert all(region.offset % ALIGNMENT == 0 for region in regions)
    for region, array in zip(regions, (A, B, A, A), strict=True):
        found = read(tmp_path / "weights.bin", region.offset, region.length, "float32", [40, 30])
        np.testing.assert_array_equal(found, array)
    assert (tmp_path / "weights.bin").stat().st_size % ALIGNMENT == 0


def test_a_constant_shares_an_original_parameter_only_where_it_is_large(tmp_path: Path) -> None:
    weights = WeightFile(tmp_path / "weights.bin")
    large, small = random_array(2, 256, 128), random_array(3, 256, 127)  # 128 KiB, and a little less
    originals = [weights.add_unshared(array) for array in (large, small)]
    assert weights.add(large) == originals[0]
    beside = weights.add(small)
    assert beside.offset > originals[1].offset and weights.add(small) == beside, "stored once more, and only once"
    weights.close()


def test_the_same_bytes_of_another_type_are_another_tensor(tmp_path: Path) -> None:
    weights = WeightFile(tmp_path / "weights.bin")
    assert weights.add(np.zeros(300, np.float32)) != weights.add(np.zeros(300, np.int32))
    weights.close()


def test_large_constants_leave_the_graph_and_small_ones_stay(tmp_path: Path) -> None:
    def build(b, x, index):
        small = b.constant(A[0], "small")
        table = b.op("Gather", [b.constant(B, "table"), index], ("batch", 30), axis=0)
        return b.add(b.add(b.gemm(x, b.constant(A, "large")), small), table)

    inputs = {"x": ("batch", 40), "index": (("batch",), ir.DataType.INT64)}
    model = make_graph(inputs, build)
    weights = WeightFile(tmp_path / "weights.bin")
    described = weights.externalise(model.graph)
    weights.close()
    assert set(described) == {"large", "table"}
    assert [described[name]["random_access"] for name in ("large", "table")] == [False, True]
    for name, array in (("large", A), ("table", B)):
        region = dict(described[name])
        region.pop("random_access")
        np.testing.assert_array_equal(read(tmp_path / "weights.bin", **region), array)
        tensor = model.graph.initializers[name].const_value
        assert isinstance(tensor, ir.ExternalTensor) and tensor.location == "weights.bin"


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(FileExistsError):
        WeightFile(tmp_path / "weights.bin")
