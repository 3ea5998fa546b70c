"""Which ONNX Runtime is installed here: the stock wheel, or onnxruntime-training, which owns the same module."""

from __future__ import annotations

import importlib.util
from pathlib import Path

__all__ = ["training_package_missing"]


def training_package_missing() -> str | None:
    """Return None where onnxruntime-training and torch are installed, else the reason; imports neither."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not any((Path(folder) / "training" / "api").is_dir() for folder in folders):
        return "onnxruntime-training is not installed: it has no wheel but for Linux x86_64 and Python <= 3.11"
    if importlib.util.find_spec("torch") is None:
        return "onnxruntime-training needs torch, which is not installed"
    return None
