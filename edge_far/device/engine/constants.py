"""Maps weights.bin once for all sessions of a process: clean pages that the system may drop and read again."""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime as ort

from edge_far.bundles.bundle import Bundle
from edge_far.errors import BundleError
from edge_far.json_file import Count

__all__ = ["MappedConstants"]


@dataclass(frozen=True)
class _Constant:
    """Where one constant lies in weights.bin; `random_access` says that single rows are looked up."""

    offset: Count
    length: Count
    dtype: Literal["float32", "float16", "int8", "uint8", "int32", "int64", "bool"]
    shape: tuple[Count, ...]
    random_access: bool


class MappedConstants:
    """The frozen constants of a bundle as views of one mapping."""

    def __init__(self, bundle: Bundle) -> None:
        """Map the file; raises BundleError where constants.json does not fit it."""
        self._path = bundle.path("portable/constants.json")
        self._regions: Mapping[str, Mapping[str, _Constant]] = bundle.document(
            "portable/constants.json", Mapping[str, Mapping[str, _Constant]]
        )
        with bundle.path("portable/weights.bin").open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._values: dict[str, dict[str, ort.OrtValue]] = {}
        self._arrays: list[np.ndarray] = []

    def give_to(self, options: ort.SessionOptions, graph: str) -> None:
        """Make a session of `graph` ('step' or 'infer') read its constants from this mapping."""
        if graph not in self._regions:
            raise BundleError(f"names no constants of {graph}", where=str(self._path), hint="export it again")
        if graph not in self._values:
            self._values[graph] = {name: self._view(name, region) for name, region in self._regions[graph].items()}
        for name, value in self._values[graph].items():
            options.add_initializer(name, value)  # shared; add_external_initializers would copy (measured)

    def _view(self, name: str, region: _Constant) -> ort.OrtValue:
        dtype = np.dtype(region.dtype)
        fits = region.length == math.prod(region.shape) * dtype.itemsize
        if not fits or region.offset % dtype.itemsize or region.offset + region.length > len(self._map):
            message = f"the constant {name} does not fit weights.bin"
            raise BundleError(message, where=str(self._path), hint="export it again")
        if region.random_access:
            # A look-up touches single rows: reading ahead around them would make the whole table resident.
            start = region.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_RANDOM, start, region.offset + region.length - start)
        flat = np.frombuffer(self._map, dtype, region.length // dtype.itemsize, region.offset)
        array = flat.reshape(region.shape)
        self._arrays.append(array)  # the OrtValue does not keep it alive
        return ort.OrtValue.ortvalue_from_numpy(array)
