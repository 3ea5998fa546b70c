"""Arrays on disk: what our writer writes, the safetensors package reads, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_far.bundles.arrays import read_arrays, read_arrays_into, write_arrays
from edge_far.errors import BundleError, StorageError

ARRAYS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "none": np.zeros((0, 4), np.float32),
    "steps": np.array([2**40], np.int64),
    "special": np.array([np.nan, np.inf, -0.0, 1e-45], np.float32),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
}


def same(found: dict[str, np.ndarray]) -> None:
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_the_package_reads_what_is_written(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", ARRAYS)
    same(load_file(tmp_path / "a.safetensors"))
    same(read_arrays(tmp_path / "a.safetensors"))


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in ARRAYS.items()}, tmp_path / "a.safetensors")
    found = read_arrays(tmp_path / "a.safetensors")
    same(found)
    found["weight"] += 1  # a copy that can be written


def test_read_in_place(tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", ARRAYS)
    targets = {name: np.full_like(array, 9) for name, array in ARRAYS.items()}
    before = dict(targets)
    read_arrays_into(tmp_path / "a.safetensors", targets)
    same(targets)
    assert all(targets[name] is before[name] for name in targets)


@pytest.mark.parametrize(
    "targets",
    [
        {"weight": np.zeros((3, 4), np.float32)},
        {name: array for name, array in ARRAYS.items() if name != "steps"} | {"other": np.zeros(1, np.int64)},
        ARRAYS | {"weight": np.zeros((4, 3), np.float32)},
        ARRAYS | {"steps": np.zeros(1, np.float32)},
    ],
)
def test_other_arrays_are_refused(targets: dict[str, np.ndarray], tmp_path: Path) -> None:
    write_arrays(tmp_path / "a.safetensors", ARRAYS)
    with pytest.raises(BundleError, match="holds"):
        read_arrays_into(tmp_path / "a.safetensors", targets)


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"not at all a safetensors file"])
def test_damage(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    for read in (read_arrays, lambda path: read_arrays_into(path, {})):
        with pytest.raises(BundleError, match="not a safetensors file"):
            read(path)
    write_arrays(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="not a safetensors file"):
        read_arrays(path)


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_arrays(path, ARRAYS)
    with pytest.raises(KeyError):
        write_arrays(path, {"complex": np.zeros(1, np.complex64)})
    same(read_arrays(path))
    with pytest.raises(StorageError):
        write_arrays(tmp_path / "none" / "a.safetensors", ARRAYS)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]
