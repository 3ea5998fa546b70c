"""A model as applications see it: a directory of `edge-far merge` or of a release, loaded without a bundle.

Whatever is missing or damaged in it ends in one line: 66 for a missing file, 65 for its content.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort

from edge_far.bundles.manifest import FileInfo, Scale
from edge_far.device.engine.options import bare_options
from edge_far.device.release_files import (
    CHECKED_FILES,
    FACTS_FILE,
    FACTS_FORMAT,
    MODEL_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
)
from edge_far.errors import DataError, InputMissing
from edge_far.json_file import Damaged, Within, decode, read_document
from edge_far.process.library_paths import utf8_path
from edge_far.storage import sha256_of
from edge_far.tasks.interface import Task
from edge_far.tasks.registry import TASKS, task_of
from edge_far.texts.batches import Batch
from edge_far.texts.places import LABELS_FILE

__all__ = ["FileModel", "is_released_model"]

LONGEST = 1 << 20  # tokens; no model reads more
COPY_AGAIN = "copy the whole directory again, or write it again with 'edge-far merge'"
THRESHOLD = Annotated[float, Within(-1e7, 1e7)]
KNOWN_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


def is_released_model(directory: Path) -> bool:
    """Return whether a directory is, or was, a released model: a bundle has none of these files."""
    return any((directory / name).is_file() for name in (MODEL_FILE, FACTS_FILE, LABELS_FILE))


class FileModel:
    """A released directory as any application loads it: model.onnx with its weights, tokenizer.json, labels.json.

    `task` is what it answers; `max_seq_len` is the longest text in tokens that it was trained on; None for a release
    that does not say.
    """

    def __init__(self, directory: Path, threads: int, *, verified: Collection[str] = ()) -> None:
        """Load it; raises InputMissing (66) for a missing file, DataError (65) for one that is damaged or changed.

        release.json holds the hashes of the files; a release of before that is checked by loading it. `verified` names
        files whose hashes the caller has just compared.
        """
        for name in (MODEL_FILE, TOKENIZER_FILE, LABELS_FILE):
            if not (directory / name).is_file():
                raise InputMissing("file does not exist", where=str(directory / name), hint=COPY_AGAIN)
        facts = _facts(directory / FACTS_FILE)
        _check_files(facts, directory, verified)
        self._path = directory / MODEL_FILE
        self._session = _load(directory, threads)
        inputs = {value.name: value.type for value in self._session.get_inputs()}
        outputs = {value.name: value.shape for value in self._session.get_outputs()}
        if "input_ids" not in inputs or set(inputs) - KNOWN_INPUTS or {*inputs.values()} != {"tensor(int64)"}:
            found = ", ".join(f"{name} {kind}" for name, kind in inputs.items())
            raise DataError(f"is no text classifier of edge-far: its inputs are {found}", where=str(self._path))
        if "logits" not in outputs:
            raise DataError(f"has no output 'logits' but {', '.join(outputs)}", where=str(self._path))
        self.token_types = "token_type_ids" in inputs
        self.tokenizer = directory / TOKENIZER_FILE
        self.labels = _labels(directory / LABELS_FILE)
        self.max_seq_len = _max_seq_len(facts, directory / FACTS_FILE)
        self.task = _task(facts, self.labels, directory / FACTS_FILE)
        self._check_width(outputs["logits"][-1])

    def logits(self, batch: Batch) -> np.ndarray:
        """Return float32 [B, outputs]; raises DataError where the model cannot read the batch."""
        try:
            (logits,) = self._session.run(["logits"], batch.model_inputs(token_types=self.token_types))
        except Exception as error:  # ONNX Runtime's exceptions share no useful base class
            raise DataError(f"cannot be run: {_reason(error)}", where=str(self._path), hint=COPY_AGAIN) from error
        self._check_width(logits.shape[-1])
        return np.asarray(logits)

    def _check_width(self, width: object) -> None:
        """Refuse labels of another number than the logits, where that is known (the graph may leave it open)."""
        if isinstance(width, int) and width != self.task.outputs:
            raise DataError(
                f"names {self.task.outputs} labels, the model has {width}",
                where=str(self._path.with_name(LABELS_FILE)),
                hint=COPY_AGAIN,
            )


def _load(directory: Path, threads: int) -> ort.InferenceSession:
    options = bare_options(threads)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = directory / MODEL_FILE
    try:
        with utf8_path(path) as name:
            return ort.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no useful base class
        weights = directory / WEIGHTS_FILE
        if not weights.is_file() and WEIGHTS_FILE in str(error):
            raise InputMissing("file does not exist", where=str(weights), hint=COPY_AGAIN) from error
        raise DataError(f"cannot be loaded: {_reason(error)}", where=str(path), hint=COPY_AGAIN) from error


def _labels(path: Path) -> list[str]:
    found = _json(path)
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise DataError("is not a list of names", where=str(path), hint=COPY_AGAIN)
    return found


def _facts(path: Path) -> dict[str, Any]:
    """Return release.json, nothing where an older release has none."""
    if not path.is_file():
        return {}
    facts = _json(path)
    if not isinstance(facts, dict):
        raise DataError("is not an object", where=str(path), hint=COPY_AGAIN)
    version = facts.get("format", 0)
    if isinstance(version, int) and version > FACTS_FORMAT:
        hint = "upgrade edge-far on this device"
        raise DataError(
            f"format {version} is newer than this edge-far reads ({FACTS_FORMAT})", where=str(path), hint=hint
        )
    return facts


def _check_files(facts: dict[str, Any], directory: Path, verified: Collection[str]) -> None:
    """Compare the files with the hashes that release.json holds, where it holds some."""
    if "files" not in facts:
        return
    try:
        files: dict[str, FileInfo] = decode(dict[str, FileInfo], facts["files"], "files")
    except Damaged as error:
        raise DataError(str(error), where=str(directory / FACTS_FILE), hint=COPY_AGAIN) from error
    if set(files) != set(CHECKED_FILES):
        message = f"'files' does not name {', '.join(CHECKED_FILES)}"
        raise DataError(message, where=str(directory / FACTS_FILE), hint=COPY_AGAIN)
    for name, info in files.items():
        path = directory / name
        if not path.is_file():
            raise InputMissing("file does not exist", where=str(path), hint=COPY_AGAIN)
        if path.stat().st_size != info.bytes or (name not in verified and sha256_of(path) != info.sha256):
            raise DataError("content has changed since it was written", where=str(path), hint=COPY_AGAIN)


def _max_seq_len(facts: dict[str, Any], path: Path) -> int | None:
    """Return what release.json says, None where an older release says nothing."""
    length = facts.get("max_seq_len")
    if length is not None and (type(length) is not int or not 1 <= length <= LONGEST):
        raise DataError(f"max_seq_len is {length!r:.40}, not a number of tokens", where=str(path), hint=COPY_AGAIN)
    return length


def _task(facts: dict[str, Any], labels: list[str], path: Path) -> Task:
    """Return what the model answers; a release that does not say gives each text one label."""
    name = facts.get("task", "classify")
    if not isinstance(name, str) or name not in TASKS:
        raise DataError(f"task is {name!r:.40}, not one of {', '.join(TASKS)}", where=str(path), hint=COPY_AGAIN)
    try:
        scale: Scale | None = decode(Scale | None, facts.get("scale"), "scale")
        threshold: float | None = decode(THRESHOLD | None, facts.get("threshold"), "threshold")
        return task_of(name, labels, scale, threshold)
    except (Damaged, ValueError) as error:
        raise DataError(str(error), where=str(path), hint=COPY_AGAIN) from error


def _json(path: Path) -> Any:
    try:
        return read_document(path, Any)
    except Damaged as error:
        raise DataError(f"is not JSON: {error}", where=str(path), hint=COPY_AGAIN) from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
