"""How a change is written for the network: float32 as it is, or 8 bits a number with one scale a block.

In 8 bits all arrays become one vector, sorted by name, cut into blocks of BLOCK numbers: int8 values, float32 scales
(the block's largest number / 127). What rounding takes away is kept on the device and added to the next change (error
feedback, arXiv 1901.09847), so that over many rounds nothing is lost. NumPy and one file; refuses to know Flower.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_far.bundles.arrays import read_arrays, write_arrays
from edge_far.errors import BundleError
from edge_far.fleet.exchange import Arrays, Form
from edge_far.fleet.terms import Refused

__all__ = ["BLOCK", "Residual", "bytes_of", "packed", "unpacked"]

BLOCK = 256
LARGEST = 127
VALUES, SCALES = "values", "scales"


def packed(change: Arrays, traffic: str) -> dict[str, np.ndarray]:
    """Return a float32 change as the arrays that travel; `traffic` is a word of terms.TRAFFIC."""
    if traffic == "float32":
        return {name: change[name] for name in sorted(change)}
    vector = np.concatenate([change[name].reshape(-1) for name in sorted(change)])
    blocks = np.zeros((-(-vector.size // BLOCK), BLOCK), np.float32)
    blocks.reshape(-1)[: vector.size] = vector
    scales = np.abs(blocks).max(axis=1) / np.float32(LARGEST)
    divisors = np.where(scales > 0, scales, np.float32(1))[:, None]
    values = np.clip(np.rint(blocks / divisors), -LARGEST, LARGEST).astype(np.int8)
    return {VALUES: values.reshape(-1)[: vector.size].copy(), SCALES: scales}


def unpacked(sent: Arrays, traffic: str, form: Form, who: str) -> dict[str, np.ndarray]:
    """Return the float32 change that `packed` arrays mean; raises Refused for what they cannot be."""
    if traffic == "float32":
        form.check(sent, who)
        return dict(sent)
    blocks = -(-form.size // BLOCK)
    Form({SCALES: (blocks,)}).check({name: array for name, array in sent.items() if name != VALUES}, who)
    values = sent.get(VALUES)
    if values is None:
        raise Refused("names", f"{VALUES!a} is missing", where=who)
    if values.dtype != np.int8:
        raise Refused("type", f"{VALUES} is {values.dtype}, not int8", where=who)
    if values.shape != (form.size,):
        raise Refused("shapes", f"{VALUES} is {list(values.shape)}, not [{form.size}]", where=who)
    with np.errstate(over="ignore"):  # refused below
        vector = np.repeat(sent[SCALES], BLOCK)[: form.size] * values.astype(np.float32)
    change, offset = {}, 0
    for name, shape in form.shapes.items():
        size = int(np.prod(shape, dtype=np.int64))
        change[name] = vector[offset : offset + size].reshape(shape)
        offset += size
    form.check(change, who)
    return change


def bytes_of(sent: Arrays) -> int:
    """Return the bytes of the arrays alone, without what the network adds."""
    return sum(array.nbytes for array in sent.values())


@dataclass(frozen=True)
class Residual:
    """What rounding has taken away so far, in one file of a device; it belongs to one bundle."""

    path: Path
    form: Form

    @classmethod
    def in_directory(cls, directory: Path, bundle: str, form: Form) -> Residual:
        """Return the residual of the bundle with this fingerprint."""
        return cls(directory / f"residual-{bundle[:16]}.safetensors", form)

    def read(self) -> dict[str, np.ndarray]:
        """Return it; zeros where there is none, or none that can be used: it is a refinement, not data."""
        try:
            found = read_arrays(self.path)
            self.form.check(found, str(self.path))
        except (BundleError, Refused):
            return {name: np.zeros(shape, np.float32) for name, shape in self.form.shapes.items()}
        return found

    def write(self, wanted: Arrays, sent: Arrays) -> None:
        """Keep wanted - sent, written to a temporary name, fsynced and renamed; raises StorageError (74)."""
        rest = {name: (wanted[name] - sent[name]).astype(np.float32) for name in self.form.shapes}
        write_arrays(self.path, rest)
