"""Writes a release: a directory that any ONNX Runtime, and optimum, loads without edge-far.

    model.onnx, weights.bin   the original architecture with the trained parameters, in the precision asked for
    tokenizer.json            and tokenizer_config.json, config.json: as transformers and optimum read them
    labels.json               the labels in the order of the logits
    release.json              `release_facts` for an application, and hashes; it is another file than the bundle's

The bundle brings a graph for each precision and says what its weights file holds (release.py, `Part`). The numbers are
made here, a parameter at a time: a board has room for no more.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from edge_far.bundles.bundle import Bundle
from edge_far.bundles.manifest import FileInfo
from edge_far.device.release import original_parameters, parts_of
from edge_far.device.transformers_files import CONFIG, TOKENIZER_FILE, TOKENIZER_SETTINGS, model_config
from edge_far.storage import sha256_of, staged_directory, storage_error, write_json
from edge_far.texts.encode import Encoder
from edge_far.texts.places import LABELS_FILE

__all__ = [
    "CHECKED_FILES",
    "FACTS_FILE",
    "FACTS_FORMAT",
    "MODEL_FILE",
    "OLDEST_ONNXRUNTIME",
    "TOKENIZER_FILE",
    "WEIGHTS_FILE",
    "Measure",
    "Precision",
    "release_facts",
    "write_release",
]

Precision = Literal["fp32", "fp16", "int8"]  # as adaptation.release_precision of a profile
Measure = Callable[[Path], Mapping[str, Any]]  # of the release's directory, before it is in its place

MODEL_FILE, WEIGHTS_FILE, FACTS_FILE = "model.onnx", "weights.bin", "release.json"
FACTS_FORMAT = 2
CHECKED_FILES = (MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE)  # by release.json; names in labels.json may be changed
POOLINGS = {"cls": "first token", "mean": "mean", "none": "none"}
OLDEST_ONNXRUNTIME = "1.15.0"  # `make test` runs releases with it: tests/device/test_oldest_runtime.py

LARGEST_INT8, LARGEST_HALF = 127, 65504.0
BLOCK_NUMBERS = 1 << 18  # of a matrix that are in memory at once in more than one form


def release_facts(
    bundle: Bundle, threshold: float | None = None, labels: Sequence[str] = (), precision: Precision = "fp32"
) -> dict[str, Any]:
    """Return what an application must know to run the released model: the content of its release.json.

    `labels` name the outputs where they are not the bundle's.
    """
    manifest = bundle.manifest
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if manifest.portable.token_types else [])]
    encoder = Encoder(bundle.path(TOKENIZER_FILE), manifest.defaults.max_seq_len)
    shape = ["batch", *(["sequence"] if manifest.task.of_tokens else []), manifest.task.outputs]
    return {
        "format": FACTS_FORMAT,
        "bundle": bundle.fingerprint,
        "model": manifest.model.name,
        "architecture": manifest.model.architecture,
        "weights": manifest.released_weights,
        "precision": precision,
        "measured": None,
        "task": manifest.task.name,
        "scale": None if manifest.task.scale is None else asdict(manifest.task.scale),
        "threshold": threshold,
        "labels": list(labels or manifest.labels),
        "inputs": [{"name": name, "type": "int64", "shape": ["batch", "sequence"]} for name in names],
        "outputs": [{"name": "logits", "type": "float32", "shape": shape}],
        "max_seq_len": manifest.defaults.max_seq_len,
        "truncation_side": "right",
        "padding_side": "right",
        "padding_id": encoder.pad_id,
        "pooling": POOLINGS[manifest.model.pooling],
        "oldest_onnxruntime": OLDEST_ONNXRUNTIME,
    }


def write_release(
    bundle: Bundle,
    learners: Mapping[str, np.ndarray],
    out: Path,
    threshold: float | None = None,
    labels: Sequence[str] = (),
    precision: Precision = "fp32",
    measure: Measure | None = None,
) -> Mapping[str, Any] | None:
    """Write the directory; return what `measure` said of it, which release.json then holds as `measured`.

    `labels` are the bundle's where none are given, `threshold` is that of a task that has one. Raises OutputExists,
    StorageError, and BundleError where the bundle lacks what the precision needs.
    """
    parts = parts_of(bundle, precision)
    parameters = original_parameters(bundle, learners)
    graph = "release.onnx" if precision == "fp32" else f"release-{precision}.onnx"
    facts = release_facts(bundle, threshold, labels, precision)
    with staged_directory(out) as staging:
        try:
            shutil.copyfile(bundle.path(f"portable/{graph}"), staging / MODEL_FILE)
            shutil.copyfile(bundle.path(TOKENIZER_FILE), staging / TOKENIZER_FILE)
            shutil.copyfile(bundle.path(f"source/{TOKENIZER_SETTINGS}"), staging / TOKENIZER_SETTINGS)
            with (staging / WEIGHTS_FILE).open("wb") as target:
                for part in parts:
                    target.seek(part.offset)
                    _write_form(target, parameters[part.parameter], part.form)
        except OSError as error:
            raise storage_error(error, out) from error
        write_json(staging / CONFIG, model_config(bundle, threshold, labels))
        write_json(staging / LABELS_FILE, list(labels or bundle.manifest.labels))
        facts["files"] = {name: _described(staging / name) for name in CHECKED_FILES}
        write_json(staging / FACTS_FILE, facts)
        if measure is not None:
            facts["measured"] = measure(staging)
            write_json(staging / FACTS_FILE, facts)
    measured: Mapping[str, Any] | None = facts["measured"]
    return measured


def _described(path: Path) -> dict[str, Any]:
    """Return the hash and the size of a file that was just written."""
    return asdict(FileInfo(sha256_of(path), path.stat().st_size))


def _write_form(target: BinaryIO, array: np.ndarray, form: str) -> None:
    """Write a parameter as float32, float16, its 8 bits (transposed for a product's right operand) or their scales."""
    if form == "float32":
        target.write(np.ascontiguousarray(array, "<f4").data)
    elif form == "float16":
        for rows in _blocks(array):
            target.write(np.clip(rows, -LARGEST_HALF, LARGEST_HALF).astype("<f2").tobytes())
    elif form in ("scales", "scales-column"):
        for rows in _blocks(array):
            target.write(_scales(rows).tobytes())
    elif form == "int8":
        for rows in _blocks(array):
            target.write(_quantised(rows).tobytes())
    else:
        turned = np.empty(array.shape[::-1], np.int8)
        for start, rows in zip(_starts(array), _blocks(array), strict=True):
            turned[:, start : start + len(rows)] = _quantised(rows).T
        target.write(turned.data)


def _starts(array: np.ndarray) -> range:
    return range(0, len(array), max(1, BLOCK_NUMBERS // max(1, array[0].size)))


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of a matrix, some at a time."""
    starts = _starts(array)
    for start in starts:
        yield array[start : start + starts.step]


def _scales(rows: np.ndarray) -> np.ndarray:
    """Return one step a row, float32 [rows]: a row's largest magnitude is 127 of them."""
    peak = np.abs(rows).max(axis=1)
    return np.where(peak > 0, peak / LARGEST_INT8, 1.0).astype("<f4")


def _quantised(rows: np.ndarray) -> np.ndarray:
    """Return rows in steps of their scales, int8; -128, which overflows on cores without dot products, is left out."""
    steps: np.ndarray = np.rint(rows / _scales(rows)[:, None])
    return np.clip(steps, -LARGEST_INT8, LARGEST_INT8).astype(np.int8)
