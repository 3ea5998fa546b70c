"""Loads the model to export, from a local directory or a model hub, as a sequence classifier with a tokenizer.json."""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from edge_far.errors import InputMissing, Unavailable
from edge_far.far.nodes import architecture_of

__all__ = ["SourceModel", "load_source"]

_ROBERTA_FIRST_POSITION = 2


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
        with warnings.catch_warnings(), _quiet("transformers"):
            warnings.simplefilter("ignore")
            config = AutoConfig.from_pretrained(model, num_labels=len(labels))
            loaded = AutoModelForSequenceClassification.from_pretrained(
                model, config=config, attn_implementation="eager", dtype=torch.float32
            )
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"cannot load the model: {str(error).splitlines()[0]}",
            where=model,
            hint="name a local directory with config.json and model.safetensors, or a hub model while online",
        ) from error
    architecture = architecture_of(loaded)
    positions = int(loaded.config.max_position_embeddings)
    if architecture == "roberta":
        positions -= _ROBERTA_FIRST_POSITION
    name = directory.resolve().name if looks_local else model
    return SourceModel(loaded, architecture, name, _tokenizer_file(model), positions)


def _tokenizer_file(model: str) -> Path:
    """Return the tokenizer.json of a model, converting an older tokenizer where need be."""
    present = Path(model) / "tokenizer.json"
    if present.is_file():
        return present
    from transformers import AutoTokenizer

    try:
        with _quiet("transformers"):
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


class _quiet:
    """Lowers a logger to errors: the loading report on new heads is expected here."""

    def __init__(self, name: str) -> None:
        self.logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)
