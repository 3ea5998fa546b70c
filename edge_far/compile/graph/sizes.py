"""Symbolic sizes: how many elements a tensor has as a function of batch B and sequence length S.

Every activation of the compiled graphs has dimensions that are integers or one of the symbols below, so a size is
a polynomial in B and S with few terms. The device evaluates the same polynomials from the manifest: it needs no
graph library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["BATCH", "SEQUENCE", "TOKENS", "Dim", "Size", "dims_of", "element_bytes"]

BATCH = "batch"
SEQUENCE = "sequence"
TOKENS = "batch*sequence"
Dim = int | str

# (power of B, power of S) of each symbolic dimension.
_POWERS: Mapping[str, tuple[int, int]] = {BATCH: (1, 0), SEQUENCE: (0, 1), TOKENS: (1, 1)}


@dataclass(frozen=True)
class Size:
    """A polynomial in B and S: {(power of B, power of S): coefficient}, in elements or bytes."""

    terms: Mapping[tuple[int, int], float]

    @staticmethod
    def of(dims: Iterable[Dim], scale: float = 1.0) -> Size:
        """Return the number of elements of a tensor with these dimensions, times `scale`."""
        total = Size({(0, 0): scale})
        for dim in dims:
            first, *taken_off = (_product(part) for part in str(dim).split("-"))  # as in 2*sequence-1
            for part in taken_off:
                first = first - part
            total = total * first
        return total

    def __mul__(self, other: Size) -> Size:
        total = Size({})
        for (batch, sequence), factor in other.terms.items():
            total = total + Size({(b + batch, s + sequence): value * factor for (b, s), value in self.terms.items()})
        return total

    def __add__(self, other: Size) -> Size:
        total = dict(self.terms)
        for power, coefficient in other.terms.items():
            total[power] = total.get(power, 0.0) + coefficient
        return Size({power: value for power, value in total.items() if value})

    def __sub__(self, other: Size) -> Size:
        return self + Size({power: -value for power, value in other.terms.items()})

    def at(self, batch: int, sequence: int) -> float:
        """Return the value for one batch shape."""
        return sum(value * batch**b * sequence**s for (b, s), value in self.terms.items())

    def to_json(self) -> list[list[float]]:
        """Return `[[power of B, power of S, coefficient], ...]` for the manifest."""
        return [[b, s, value] for (b, s), value in sorted(self.terms.items())]


def _product(dim: str) -> Size:
    """Return the size of a dimension that is a product, such as 2*sequence*sequence."""
    scale, batch, sequence = 1.0, 0, 0
    for factor in dim.split("*"):
        if factor.isdigit():
            scale *= int(factor)
        elif factor == f"{SEQUENCE}/8":
            scale, sequence = scale / 8, sequence + 1
        else:
            power = _POWERS[factor]
            batch, sequence = batch + power[0], sequence + power[1]
    return Size({(batch, sequence): scale})


def dims_of(value: ir.Value) -> tuple[Dim, ...]:
    """Return a value's dimensions; raises ValueError where the graph does not know them."""
    if value.shape is None:
        raise ValueError(f"the shape of {value.name!r} is unknown")
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)


def element_bytes(value: ir.Value) -> float:
    """Return the bytes of one element of a value."""
    if value.dtype is None:
        raise ValueError(f"the element type of {value.name!r} is unknown")
    return value.dtype.itemsize
