"""Writes and reads named arrays as safetensors, one array at a time: a checkpoint costs no memory of its own.

The `safetensors` package serialises all arrays in memory before it writes, which doubles the optimiser state at the
very moment memory is tight; the format is a JSON header and the arrays' bytes (its README), so the writer here is
short. Files are read with the package.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import safe_open

from edge_far.errors import BundleError
from edge_far.storage import write_atomically

__all__ = ["read_arrays", "read_arrays_into", "read_learners", "refuse_non_numbers", "write_arrays"]

_TYPES = {"float32": "F32", "int64": "I64", "int8": "I8", "uint8": "U8"}
_HEADER_ALIGNMENT = 8


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays (float32, int64, int8 or uint8) atomically; raises StorageError."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": _TYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % _HEADER_ALIGNMENT)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(encoded)))
        file.write(encoded)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    write_atomically(path, write)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a file, as writable copies; raises BundleError when it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own kind
        raise BundleError(f"not a safetensors file: {_first_line(error)}", where=str(path)) from error


def read_learners(path: Path) -> dict[str, np.ndarray]:
    """Return trained parameters as `read_arrays` does; raises BundleError also where one holds infinity or NaN."""
    arrays = read_arrays(path)
    refuse_non_numbers(path, arrays)
    return arrays


def read_arrays_into(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Overwrite `arrays` in place with those of a file, one at a time.

    Raises BundleError when the file is damaged or holds other arrays.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            if names != set(arrays):
                raise BundleError("holds other arrays than this run's", where=str(path))
            for name, array in arrays.items():
                stored = file.get_tensor(name)
                if stored.shape != array.shape or stored.dtype != array.dtype:
                    raise BundleError(f"holds {name} as {stored.dtype}{list(stored.shape)}", where=str(path))
                array[...] = stored
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"not a safetensors file: {_first_line(error)}", where=str(path)) from error


def refuse_non_numbers(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise BundleError where an array that was read from `path` holds infinity or NaN, which no learner is."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            message = f"{ascii(name)[1:-1]:.80} holds infinity or NaN"
            raise BundleError(message, where=str(path), hint="copy it again, or train again")


def _first_line(error: Exception) -> str:
    """Return what an error says, on one line of harmless letters: a name in the file may be part of it."""
    return ascii((str(error).splitlines() or [type(error).__name__])[0])[1:-1][:200]
