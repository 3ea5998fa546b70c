"""Torch traces a model once for all that is compiled of it: of a tiny model, tracing takes most of the time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import onnx_ir as ir

from edge_far.compile import graph_passes
from edge_far.compile.forward.trace import export_forward

__all__ = ["traced_once"]


def traced_once(known: dict[Hashable, ir.Model], key: Hashable) -> Callable[..., ir.Model]:
    """Return what stands in for export_forward: it returns a copy of the trace of `key`, the first time made anew."""

    def trace(*given: Any) -> ir.Model:
        if key not in known:
            known[key] = export_forward(*given)
        return graph_passes._copy(known[key])

    return trace
