"""One file of constants for all graphs of a bundle: equal tensors are stored once, and the device maps it.

Small constants stay inside the graphs: a mapped page for four bytes is no saving. Those of some pages are stored once
more behind the original parameters, beside the constants that are used with them: where the system keeps a file in
pieces of 2 MiB (Linux 6.16 on ext4), each piece that is touched becomes resident as a whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

__all__ = ["WeightFile", "WeightRegion"]

ALIGNMENT = 4096  # a page: neighbours never share one
SMALLEST_EXTERNAL_BYTES = 1024
SMALLEST_SHARED_BYTES = 1 << 17  # with an original parameter, which lies far from the constants


@dataclass(frozen=True)
class WeightRegion:
    """Where a tensor lies in the file, in bytes."""

    offset: int
    length: int


class WeightFile:
    """Appends tensors to a new file; `close` fsyncs it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")
        self._known: dict[str, WeightRegion] = {}

    def add(self, array: np.ndarray) -> WeightRegion:
        """Store a tensor, or find an equal one stored before."""
        raw = np.ascontiguousarray(array).tobytes()
        key = f"{array.dtype.str}:{hashlib.sha256(raw).hexdigest()}"
        if key not in self._known:
            self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
            self._known[key] = WeightRegion(self._file.tell(), len(raw))
            self._file.write(raw)
        return self._known[key]

    def add_unshared(self, array: np.ndarray) -> WeightRegion:
        """Store a tensor in a region that no tensor but a large equal constant shares, to be overwritten alone."""
        raw = np.ascontiguousarray(array).tobytes()
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        region = WeightRegion(self._file.tell(), len(raw))
        self._file.write(raw)
        if len(raw) >= SMALLEST_SHARED_BYTES:
            self._known.setdefault(f"{array.dtype.str}:{hashlib.sha256(raw).hexdigest()}", region)
        return region

    def externalise(self, graph: ir.Graph) -> dict[str, dict[str, object]]:
        """Make every large initializer of a graph refer to this file; return where each lies, for the device."""
        described: dict[str, dict[str, object]] = {}
        for name, value in graph.initializers.items():
            tensor = value.const_value
            assert tensor is not None
            if tensor.nbytes < SMALLEST_EXTERNAL_BYTES:
                continue
            array = tensor.numpy()
            region = self.add(array)
            self.refer(name, value, region)
            looked_up = any(user.op_type == "Gather" and index == 0 for user, index in value.uses())
            described[name] = {
                "offset": region.offset,
                "length": region.length,
                "dtype": array.dtype.name,
                "shape": list(array.shape),
                "random_access": looked_up,
            }
        return described

    def refer(self, name: str, value: ir.Value, region: WeightRegion) -> None:
        """Make one initializer refer to a region of this file."""
        assert value.dtype is not None and value.shape is not None
        value.const_value = ir.ExternalTensor(
            self.path.name,
            region.offset,
            region.length,
            value.dtype,
            shape=value.shape,
            name=name,
            base_dir=self.path.parent,
        )

    def close(self) -> None:
        """Finish the file."""
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        self._file.close()
