"""Loads the model to export, from a local directory or a model hub, as a sequence classifier with a tokenizer.json."""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from edge_far.errors import InputMissing, Unavailable
from edge_far.far.nodes import architecture_of

__all__ = ["SourceModel", "load_source"]

_ROBERTA_FIRST_POSITION = 2
# What a sequence classifier has on top of its encoder, in transformers' BERT, DistilBERT and RoBERTa.
_NEW_HEAD = re.compile(r"^(classifier|pre_classifier)\.|(^|\.)pooler\.")
_SAYS_NOTHING = {"model", "models", "checkpoint", "best", "last", "final", "output"}


@dataclass
class SourceModel:
    """A torch classifier and what the bundle takes over unchanged."""

    model: torch.nn.Module
    architecture: str
    name: str
    tokenizer: Path
    max_positions: int


def load_source(model: str, labels: list[str], seed: int) -> SourceModel:
    """Load a model with a head for `labels`; a new head is initialised from `seed`.

    `model` is a directory or, where a hub is reachable, a model's name. Raises InputMissing or Unavailable.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    directory = Path(model)
    looks_local = directory.is_dir() or model.startswith((".", "/", "~"))
    if looks_local and not (directory / "config.json").is_file():
        raise InputMissing(
            "no model here: config.json is missing",
            where=model,
            hint="name a directory saved by transformers",
        )
    torch.manual_seed(seed)
    try:
        with warnings.catch_warnings(), _quiet_transformers():
            warnings.simplefilter("ignore")
            config = AutoConfig.from_pretrained(model, num_labels=len(labels))
            loaded, loading = AutoModelForSequenceClassification.from_pretrained(
                model,
                config=config,
                attn_implementation="eager",
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise Unavailable(
            f"cannot load the model: {str(error).splitlines()[0]}",
            where=model,
            hint="name a local directory with config.json and model.safetensors, or a hub model while online",
        ) from error
    architecture = architecture_of(loaded)
    _refuse_random_encoder(loading, model)
    name = _name_of(directory.resolve(), architecture, loaded.config) if looks_local else model
    positions = int(loaded.config.max_position_embeddings)
    if architecture == "roberta":
        positions -= _ROBERTA_FIRST_POSITION
    return SourceModel(loaded, architecture, name, _tokenizer_file(model), positions)


def _refuse_random_encoder(loading: Mapping[str, Any], model: str) -> None:
    """Only the head may be new: transformers would fill whatever else does not fit with random numbers."""
    mismatched = [key[0] if isinstance(key, tuple) else key for key in loading["mismatched_keys"]]
    foreign = sorted(key for key in (*loading["missing_keys"], *mismatched) if not _NEW_HEAD.search(key))
    if foreign:
        raise Unavailable(
            f"{len(foreign)} weights are missing or of another size than config.json says: {', '.join(foreign[:3])}",
            where=model,
            hint="name a directory whose config.json and weights belong together",
        )


def _name_of(directory: Path, architecture: str, config: Any) -> str:
    """Return a name for the manifest: the directory's, its Python package's, or architecture and sizes."""
    if directory.name.lower() not in _SAYS_NOTHING:
        return directory.name
    if (directory.parent / "__init__.py").is_file():
        return directory.parent.name
    return f"{architecture}-{config.num_hidden_layers}x{config.hidden_size}"


def _tokenizer_file(model: str) -> Path:
    """Return the tokenizer.json of a model, converting an older tokenizer where need be."""
    present = Path(model) / "tokenizer.json"
    if present.is_file():
        return present
    from transformers import AutoTokenizer

    try:
        with _quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(model)
        converted = Path(tempfile.mkdtemp(prefix="edge-far-")) / "tokenizer.json"
        tokenizer.backend_tokenizer.save(str(converted))
    except (OSError, ValueError, AttributeError) as error:
        raise Unavailable(
            f"the model has no tokenizer that the Rust tokenizers package reads: {str(error).splitlines()[0]}",
            where=model,
            hint="put its tokenizer.json into the model's directory",
        ) from error
    return converted


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hide what transformers prints while it loads: remarks on the new head, which is expected, and a progress bar."""
    from transformers.utils import logging as transformers_logging

    logger = logging.getLogger("transformers")
    level, bars = logger.level, transformers_logging.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
