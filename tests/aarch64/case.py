"""One operator's case for comparing processors, and the sizes and tolerances that all cases share."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto

FLOAT, UINT8, INT32, FLOAT16 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT32, TensorProto.FLOAT16
BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
MICROSOFT = "com.microsoft"
# Tolerances, as parts of the largest value of the output; BYTE is one step of 255, for bytes that may end between two.
EXACT, FP32, INT8, BYTE = 0.0, 1e-5, 1e-2, 1 / 254
ROWS, INNER, COLUMNS = 37, 128, 51  # odd sizes: the tails of the vector kernels are run too


@dataclass(frozen=True)
class Case:
    """One node: its run-time inputs and stored constants in the operator's order, and its outputs' types."""

    name: str
    operator: str
    arguments: dict[str, np.ndarray]
    expected: np.ndarray
    tolerance: float
    domain: str = ""
    constants: tuple[str, ...] = ()
    outputs: tuple[int, ...] = (FLOAT,)
    attributes: dict[str, object] = field(default_factory=dict)
    in_place: str | None = None  # input whose memory the first output is bound to
