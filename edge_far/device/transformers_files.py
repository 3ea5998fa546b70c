"""Writes the trained model as a directory that transformers, or sentence-transformers, loads: torch's names, float32.

The bundle brings what only the workstation knows (its source/, compile/emit/source_files.py). A head on one token, or
on each, is a class of transformers. A head on the mean of all tokens is none; it becomes the last module of a
sentence-transformers directory, whose "embedding" are the logits. No torch and no transformers are needed here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_far.architectures.registry import architecture_named
from edge_far.bundles.arrays import write_arrays
from edge_far.bundles.bundle import Bundle
from edge_far.device.release import original_parameters
from edge_far.errors import BundleError, UsageError
from edge_far.storage import staged_directory, storage_error, write_json

__all__ = [
    "CONFIG",
    "TOKENIZER_FILE",
    "TOKENIZER_SETTINGS",
    "WEIGHTS",
    "Format",
    "model_config",
    "refuse_unfit_format",
    "write_transformers_directory",
]

Format = Literal["transformers", "sentence-transformers"]
WEIGHTS = "model.safetensors"
CONFIG, TOKENIZER_FILE, TOKENIZER_SETTINGS = "config.json", "tokenizer.json", "tokenizer_config.json"
POOLING, DENSE = "1_Pooling", "2_Dense"
HEAD = "classifier."
_METADATA = {"format": "pt"}  # transformers refuses a file that does not say so
_POOLING_MODES = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")


def refuse_unfit_format(bundle: Bundle, format: Format) -> None:
    """Raise UsageError where the model is not of this format, BundleError where the bundle lacks the files for it."""
    for name in (CONFIG, TOKENIZER_SETTINGS):
        if f"source/{name}" not in bundle.manifest.files:
            hint = "export it again: it was made before there was --format"
            raise BundleError(f"the bundle has no source/{name}", where=str(bundle.root), hint=hint)
    if _is_encoder(bundle) and format == "transformers":
        raise UsageError(
            "the head stands on the mean of all tokens, and no class of transformers has such a head",
            where="--format transformers",
            hint="take --format sentence-transformers",
        )
    if not _is_encoder(bundle) and format == "sentence-transformers":
        raise UsageError(
            "the head is one that transformers knows, and sentence-transformers does not",
            where="--format sentence-transformers",
            hint="take --format transformers",
        )


def _is_encoder(bundle: Bundle) -> bool:
    """Say whether transformers has a class for the encoder alone: then the head is ours, on the mean of all tokens.

    The manifest's pooling does not tell: some models have a head on the mean of their own.
    """
    document: dict[str, Any] = bundle.document(f"source/{CONFIG}", dict[str, Any])
    return document.get("architectures") == [architecture_named(bundle.manifest.model.architecture).model_classes[1]]


def write_transformers_directory(
    bundle: Bundle,
    learners: Mapping[str, np.ndarray],
    out: Path,
    format: Format,
    threshold: float | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Write config.json, model.safetensors and the tokenizer's files; with the mean also the modules for it.

    config.json has, besides transformers' own keys, `edge_far`: bundle, task, scale of numbers, `threshold`; `labels`
    name the outputs where they are not the bundle's. Raises
    what `refuse_unfit_format` raises, OutputExists or StorageError.
    """
    refuse_unfit_format(bundle, format)
    parameters = original_parameters(bundle, learners)
    with staged_directory(out) as staging:
        try:
            shutil.copyfile(bundle.path(TOKENIZER_FILE), staging / TOKENIZER_FILE)
            shutil.copyfile(bundle.path(f"source/{TOKENIZER_SETTINGS}"), staging / TOKENIZER_SETTINGS)
        except OSError as error:
            raise storage_error(error, out) from error
        write_json(staging / CONFIG, model_config(bundle, threshold, labels))
        if format == "sentence-transformers":
            parameters = _write_modules(bundle, parameters, staging)
        write_arrays(staging / WEIGHTS, parameters, _METADATA)


def model_config(bundle: Bundle, threshold: float | None, labels: Sequence[str]) -> dict[str, Any]:
    """Return the bundle's config.json, with these labels, or those that the manifest names."""
    manifest = bundle.manifest
    document: dict[str, Any] = bundle.document(f"source/{CONFIG}", dict[str, Any])
    if names := labels or manifest.labels:
        document["id2label"] = {str(number): label for number, label in enumerate(names)}
        document["label2id"] = {label: number for number, label in enumerate(names)}
    document["edge_far"] = {
        "bundle": bundle.fingerprint,
        "task": manifest.task.name,
        "scale": None if manifest.task.scale is None else asdict(manifest.task.scale),
        "threshold": threshold,
    }
    return document


def _write_modules(bundle: Bundle, parameters: Mapping[str, np.ndarray], staging: Path) -> dict[str, np.ndarray]:
    """Write what stands on the encoder; return the encoder's parameters, by their names in the encoder's own class."""
    model, prefix = bundle.manifest.model, f"{architecture_named(bundle.manifest.model.architecture).encoder}."
    modules = (("", "Transformer"), (POOLING, "Pooling"), (DENSE, "Dense"))
    write_json(
        staging / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(modules)
        ],
    )
    longest = bundle.manifest.defaults.max_seq_len
    write_json(staging / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    for folder in (POOLING, DENSE):
        (staging / folder).mkdir()
    modes = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in _POOLING_MODES}
    write_json(staging / POOLING / CONFIG, {"word_embedding_dimension": model.hidden, **modes})
    head = {name.removeprefix(HEAD): array for name, array in parameters.items() if name.startswith(HEAD)}
    sizes = {"in_features": model.hidden, "out_features": bundle.manifest.task.outputs, "bias": True}
    write_json(staging / DENSE / CONFIG, {**sizes, "activation_function": "torch.nn.modules.linear.Identity"})
    write_arrays(staging / DENSE / WEIGHTS, {f"linear.{name}": array for name, array in head.items()}, _METADATA)
    return {name.removeprefix(prefix): array for name, array in parameters.items() if name.startswith(prefix)}
