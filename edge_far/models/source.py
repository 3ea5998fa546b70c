"""Loads the model to export, from a local directory or a model hub, as a sequence classifier with a tokenizer.json.

Everything that can be told without the weights is checked before they are read. `load_source` is the order of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_far.errors import Unavailable
from edge_far.far.nodes import architecture_of
from edge_far.far.pooling import SpanClassifier, no_pooling, pooling_of
from edge_far.models.config import ModelConfig, read_config
from edge_far.models.directory import find_place
from edge_far.models.exchanged.exchange import exchange_modules
from edge_far.models.guard import guarded, transformers_package
from edge_far.models.head import HEAD, Head, fit_head, saved_labels
from edge_far.models.tokenizers import TokenizerFile, choose_tokenizer
from edge_far.models.weight_files import check_weights, unused_weights
from edge_far.texts.data import Example

__all__ = ["SourceModel", "load_source"]

_SAYS_NOTHING = {"model", "models", "checkpoint", "best", "last", "final", "output"}
POOLER = re.compile(r"(^|\.)pooler\.")  # a head on every token has none
_GIVEN_HEAD = Head("kept", "the caller gave it")
_BELONG_TOGETHER = "name a directory whose config.json and weights belong together"


@dataclass
class SourceModel:
    """A torch classifier and what the bundle takes over unchanged.

    `head` says what became of the classifier's head; `warnings` are sentences for the user.
    """

    model: torch.nn.Module
    architecture: str
    name: str
    tokenizer: Path
    max_positions: int
    head: Head = _GIVEN_HEAD
    warnings: tuple[str, ...] = ()
    pooling: str = "cls"  # the model's usual one, or what was asked for
    tokenizer_file: TokenizerFile | None = None  # keeps a file that was made for this model alive
    directory: Path | None = None  # where config.json and the tokenizer's settings lie


def load_source(
    model: str,
    labels: Sequence[str],
    seed: int,
    *,
    examples: Sequence[Example] = (),
    dropout: bool = False,
    pooling: str = "auto",
    outputs: int | None = None,
    problem_type: str | None = None,
    head_class: str = "SequenceClassification",
) -> SourceModel:
    """Load a model with a head for `labels`, or of so many `outputs`; a new head is initialised from `seed`.

    `model` is a directory or, where a hub is reachable, a model's name. `examples` are some that it will read; with
    `dropout` its sizes must allow dropout masks; `pooling` is auto, cls or mean (far/pooling.py); `problem_type`
    is transformers' word for the task, `head_class` the end of its name for classes with such a head; where every
    token is read there is no pooling. Raises ConfigError, InputMissing, Unavailable or StorageError.
    """
    transformers_package()
    place = find_place(model)
    of_tokens = head_class != "SequenceClassification"
    usual = no_pooling(pooling) if of_tokens else pooling_of(place.whole, pooling)
    config = read_config(place.directory, dropout=dropout)
    saved_labels(config)
    place.fetch_weights()
    check_weights(config)
    tokenizer = choose_tokenizer(config, examples)
    loaded, loading = _load(config, len(labels) if outputs is None else outputs, seed, model, head_class)
    exchange_modules(loaded)
    architecture = architecture_of(loaded).name
    _refuse_random_encoder(loading, model)
    _refuse_not_finite(loaded, model)
    head = fit_head(loaded, config, labels, loading, seed, problem_type, head_class)
    if head_class == "QuestionAnswering":
        loaded = SpanClassifier(loaded)
    name = place.hub_name or _name_of(place.whole.resolve(), architecture, loaded.config)
    warnings = [f"a new head: {head.why}"] if head.lost else []
    warnings += tokenizer.warnings
    unexpected = [key for key in loading["unexpected_keys"] if not (of_tokens and POOLER.search(key))]
    if unused := unused_weights(unexpected):
        warnings.append(unused)
    if head.kind != "new" and pooling == "auto" and not of_tokens:
        usual = "cls"  # what its head was trained on
    return SourceModel(
        loaded,
        architecture,
        name,
        tokenizer.path,
        config.max_positions,
        head,
        tuple(warnings),
        usual,
        tokenizer,
        place.directory,
    )


def _load(config: ModelConfig, outputs: int, seed: int, model: str, head_class: str) -> tuple[Any, Mapping[str, Any]]:
    """Return the classifier and transformers' account of what was missing, of another size, or unused."""
    transformers = transformers_package()
    config.config.num_labels = outputs
    torch.manual_seed(seed)
    with guarded(
        "cannot load the model", model, "name a local directory with config.json and model.safetensors of one model"
    ):
        loaded, loading = getattr(transformers, f"AutoModelFor{head_class}").from_pretrained(
            config.path.parent,
            config=config.config,
            attn_implementation="eager",
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    return loaded, loading


def _refuse_random_encoder(loading: Mapping[str, Any], model: str) -> None:
    """Only the head may be new: transformers would fill whatever else does not fit with random numbers."""
    mismatched = [key[0] if isinstance(key, tuple) else key for key in loading["mismatched_keys"]]
    foreign = sorted(key for key in (*loading["missing_keys"], *mismatched) if not HEAD.search(key))
    if foreign:
        raise Unavailable(
            f"{len(foreign)} weights are missing or of another size than config.json says: {', '.join(foreign[:3])}",
            where=model,
            hint=_BELONG_TOGETHER,
        )


def _refuse_not_finite(loaded: torch.nn.Module, model: str) -> None:
    for name, parameter in loaded.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise Unavailable(
                f"the weight {name} holds NaN or infinity", where=model, hint="take an earlier checkpoint"
            )


def _name_of(directory: Path, architecture: str, config: Any) -> str:
    """Return a name for the manifest: the directory's, its Python package's, or architecture and sizes."""
    if directory.name.lower() not in _SAYS_NOTHING:
        return directory.name
    if (directory.parent / "__init__.py").is_file():
        return directory.parent.name
    return f"{architecture}-{config.num_hidden_layers}x{config.hidden_size}"
