"""What travels between device and server: named float32 arrays, and what each side checks before it uses them.

NumPy alone. Refuses to know how they travel (traffic.py) and who averages them (average.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_far.fleet.terms import Refused

__all__ = ["Arrays", "Form", "change_between", "check_norm", "clipped", "moved", "norm_of"]

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Form:
    """Names and shapes of a bundle's learners, in the order in which they travel."""

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, arrays: Arrays) -> Form:
        """Return the form of arrays that are known to be good, sorted by name."""
        return cls({name: arrays[name].shape for name in sorted(arrays)})

    @property
    def size(self) -> int:
        """Return how many numbers there are in all."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def check(self, arrays: Arrays, who: str) -> None:
        """Raise Refused unless `arrays`, which came from `who`, are finite float32 of this form."""
        if set(arrays) != set(self.shapes):
            odd = min(set(arrays) ^ set(self.shapes))
            raise Refused("names", f"{odd[:80]!a} is {'not expected' if odd in arrays else 'missing'}", where=who)
        for name, shape in self.shapes.items():
            array = arrays[name]
            if array.dtype != np.float32:
                raise Refused("type", f"{name} is {array.dtype}, not float32", where=who)
            if array.shape != shape:
                raise Refused("shapes", f"{name} is {list(array.shape)}, not {list(shape)}", where=who)
            if not np.isfinite(array).all():
                raise Refused("numbers", name, where=who)


def norm_of(arrays: Arrays) -> float:
    """Return the L2 norm over all arrays, summed in float64."""
    return math.sqrt(sum(float(np.sum(np.square(array, dtype=np.float64))) for array in arrays.values()))


def check_norm(change: Arrays, most: float, who: str) -> float:
    """Return the norm of a change; raises Refused where it is above `most`."""
    found = norm_of(change)
    if not found <= most:
        raise Refused("norm", f"{found:.6g}, and {most:g} is allowed", where=who)
    return found


def clipped(change: Arrays, most: float) -> tuple[dict[str, np.ndarray], bool]:
    """Return a change whose norm is at most `most` (0: as it is), and whether it was made smaller."""
    found = norm_of(change)
    if not most or found <= most:
        return dict(change), False
    # A hair below, so that the norm after rounding to float32 keeps the bound.
    factor = np.float64(most / found * (1 - 1e-6))
    return {name: (array * factor).astype(np.float32) for name, array in change.items()}, True


def change_between(before: Arrays, after: Arrays) -> dict[str, np.ndarray]:
    """Return after - before, float32."""
    return {name: (after[name] - before[name]).astype(np.float32) for name in sorted(before)}


def moved(before: Arrays, change: Arrays) -> dict[str, np.ndarray]:
    """Return before + change in float64, in which the sum of two float32 numbers of like size is exact."""
    return {name: before[name].astype(np.float64) + change[name].astype(np.float64) for name in sorted(before)}
