"""edge-far: fine-tune BERT-like models on edge devices, inside a memory budget.

An application imports one name of it: `from edge_far import Model` (application/model.py).
"""

from typing import Any

from edge_far.process.privacy import forbid_reports

__version__ = "0.1.0"

forbid_reports()  # here, because nothing of ours runs earlier: see edge_far/process/privacy.py


def __getattr__(name: str) -> Any:
    """Return `Model`, which is imported where it is asked for: it brings NumPy and ONNX Runtime with it."""
    if name != "Model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module("edge_far.application.model").Model
