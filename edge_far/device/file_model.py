"""A model as applications see it: a directory of `edge-far merge` or of a release, loaded without a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort

from edge_far.errors import DataError
from edge_far.texts.batches import Batch

__all__ = ["FileModel"]


class FileModel:
    """A released directory as any application loads it: model.onnx with its weights, tokenizer.json, labels.json."""

    def __init__(self, directory: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.disable_prepacking", "1")  # weights stay mapped
        path = directory / "model.onnx"
        try:
            self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.labels: list[str] = json.loads((directory / "labels.json").read_bytes())
        except Exception as error:  # ONNX Runtime's exceptions share no useful base class
            raise DataError(f"cannot be loaded: {str(error).splitlines()[0]}", where=str(path)) from error
        self.tokenizer = directory / "tokenizer.json"
        self.token_types = any(value.name == "token_type_ids" for value in self._session.get_inputs())

    def logits(self, batch: Batch) -> np.ndarray:
        """Return float32 [B, labels]."""
        (logits,) = self._session.run(["logits"], batch.model_inputs(token_types=self.token_types))
        return np.asarray(logits)
