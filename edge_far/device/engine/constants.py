"""Maps weights.bin once for all sessions of a process: clean pages that the system may drop and read again."""

from __future__ import annotations

import json
import mmap
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_far.bundle import Bundle
from edge_far.errors import BundleError

__all__ = ["MappedConstants"]


class MappedConstants:
    """The frozen constants of a bundle as views of one mapping."""

    def __init__(self, bundle: Bundle) -> None:
        """Map the file; raises BundleError where constants.json does not fit it."""
        self._regions = json.loads(bundle.path("portable/constants.json").read_bytes())
        with bundle.path("portable/weights.bin").open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._values: dict[str, dict[str, ort.OrtValue]] = {}
        self._arrays: list[np.ndarray] = []

    def give_to(self, options: ort.SessionOptions, graph: str) -> None:
        """Make a session of `graph` ('step' or 'infer') read its constants from this mapping."""
        if graph not in self._values:
            self._values[graph] = {name: self._view(name, region) for name, region in self._regions[graph].items()}
        for name, value in self._values[graph].items():
            options.add_initializer(name, value)  # shared; add_external_initializers would copy (measured)

    def _view(self, name: str, region: dict[str, Any]) -> ort.OrtValue:
        offset, length, dtype = region["offset"], region["length"], np.dtype(region["dtype"])
        if offset < 0 or offset + length > len(self._map):
            raise BundleError(f"constant {name} lies outside weights.bin")
        if region["random_access"]:
            # A look-up touches single rows: reading ahead around them would make the whole table resident.
            self._map.madvise(
                mmap.MADV_RANDOM, offset // mmap.PAGESIZE * mmap.PAGESIZE, length + offset % mmap.PAGESIZE
            )
        flat = np.frombuffer(self._map, dtype, length // dtype.itemsize, offset)
        array = flat.reshape(region["shape"])
        self._arrays.append(array)  # the OrtValue does not keep it alive
        return ort.OrtValue.ortvalue_from_numpy(array)
