"""config.json, read and checked before any weight is: every key that decides what the model computes.

Only the checked keys reach transformers. All others (`return_dict`, `chunk_size_feed_forward`, `torch_dtype`, ...)
change nothing that is exported, so whatever they hold does no harm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_far.architectures.adapter import Architecture
from edge_far.architectures.config_keys import SAME_ACTIVATION, Activation, Number, Only
from edge_far.architectures.registry import ARCHITECTURES, architecture_of_class, why_refused
from edge_far.errors import Unavailable
from edge_far.models.directory import CONFIG
from edge_far.models.files import read_object
from edge_far.models.guard import guarded, transformers_package

__all__ = ["ModelConfig", "read_config"]

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
DROPOUT_MULTIPLE = 8  # a byte holds the mask of eight numbers (compile/forward/dropout.py)
SHORTEST = 8  # tokens: the smallest --max-seq-len
_DECIDES = "correct it in config.json: it must say what the weights were trained with"


@dataclass(frozen=True)
class ModelConfig:
    """A config.json that was checked: `config` is transformers' own object, made of the checked keys alone.

    `document` is the whole file, for what is said about labels and tokenizer.
    """

    path: Path
    architecture: Architecture
    config: Any
    document: Mapping[str, Any]

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table."""
        return int(self.config.vocab_size)

    @property
    def max_positions(self) -> int:
        """Tokens of the longest text; some models skip the first rows of their position table."""
        skipped = self.architecture.skipped_positions(self.config.pad_token_id)
        return int(self.config.max_position_embeddings) - skipped


def read_config(directory: Path, *, dropout: bool) -> ModelConfig:
    """Read and check the config.json of a directory; with `dropout`, also that masks fit its sizes.

    Raises Unavailable, which names the key, and what `read_object` raises.
    """
    path = directory / CONFIG
    document = read_object(path)
    architecture = _architecture(document, path)
    _refuse_other_models(document, path)
    named = {architecture.other_names.get(key, key): value for key, value in document.items()}
    values = {key: named[key] for key in architecture.keys if key in named}
    for key, value in values.items():
        rule = architecture.keys[key]
        if wrong := rule.wrong(value):
            unknown_function = isinstance(rule, Activation) and isinstance(value, str)
            hint = "choose another model: what it was trained with cannot be changed" if unknown_function else _DECIDES
            raise _refusal(path, f"{key} is {_shown(value)}, {wrong}", hint)
        if isinstance(rule, Number) and value is not None:
            values[key] = float(value)  # transformers refuses 0 where it wants 0.0
    for key in values:
        if isinstance(architecture.keys[key], Activation):
            values[key] = SAME_ACTIVATION.get(values[key], values[key])
    config = _transformers_config(architecture, values, path)
    for key, rule in architecture.keys.items():
        if isinstance(rule, Only) and key not in values and (wrong := rule.wrong(getattr(config, key, None))):
            raise _refusal(path, f"{key} is missing, {wrong}", _DECIDES)
    checked = ModelConfig(path, architecture, config, document)
    _check_sizes(checked, dropout)
    return checked


def _architecture(document: Mapping[str, Any], path: Path) -> Architecture:
    kind = document.get("model_type")
    if isinstance(kind, str) and kind in ARCHITECTURES:
        return ARCHITECTURES[kind]
    hint = f"supported are {', '.join(ARCHITECTURES)}"
    if kind is not None:
        why = why_refused(kind) if isinstance(kind, str) else None
        because = f": {why}" if why else ""
        raise _refusal(path, f"model_type is {_shown(kind)}, which is not supported{because}", hint)
    classes = document.get("architectures")
    for name in classes if isinstance(classes, list) else ():
        if (guess := architecture_of_class(str(name))) is not None:
            hint = f'the model is a {name}: add "model_type": "{guess.name}"'
    raise _refusal(path, "model_type is missing", hint)


def _refuse_other_models(document: Mapping[str, Any], path: Path) -> None:
    """Refuse what would be computed otherwise than the weights mean it."""
    if quantized := document.get("quantization_config"):
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        named = f" by {method}" if isinstance(method, str) else ""
        raise _refusal(path, f"quantization_config: saved quantised{named}", "save it in float32 or float16 first")
    for key in ("is_decoder", "add_cross_attention", "is_encoder_decoder"):
        if document.get(key):
            raise _refusal(path, f"{key} is {_shown(document[key])}: configured as a decoder", "use an encoder")
    positions = document.get("position_embedding_type")
    if positions not in (None, "absolute"):
        raise _refusal(
            path,
            f"position_embedding_type is {_shown(positions)}, and transformers reads absolute positions alone",
            "its weights would be dropped: choose a model with absolute positions",
        )
    if document.get("pruned_heads"):
        raise _refusal(path, "pruned_heads: transformers no longer reads pruned heads", "choose an unpruned model")
    problem = document.get("problem_type")
    if problem is not None and problem not in PROBLEM_TYPES:
        raise _refusal(path, f"problem_type is {_shown(problem)}, not one of {', '.join(PROBLEM_TYPES)}", _DECIDES)


def _check_sizes(model: ModelConfig, dropout: bool) -> None:
    config, path = model.config, model.path
    name, heads = model.architecture.width_key, int(config.num_attention_heads)
    divided = model.architecture.inner_width_key or name
    if (width := int(getattr(config, divided))) % heads:
        raise _refusal(path, f"{divided} is {width}, which {heads} attention heads do not divide", _DECIDES)
    pad = config.pad_token_id
    if pad is None and model.architecture.first_position == "padding":
        raise _refusal(
            path,
            f"pad_token_id is null, and {model.architecture.title} counts positions from it",
            "give the tokenizer's id of <pad>",
        )
    if pad is not None and pad >= model.vocabulary:
        raise _refusal(path, f"pad_token_id is {pad}, and vocab_size {model.vocabulary}", _DECIDES)
    if model.max_positions < SHORTEST:
        raise _refusal(
            path,
            f"max_position_embeddings is {config.max_position_embeddings}: texts of {model.max_positions} tokens",
            f"at least {SHORTEST} are needed",
        )
    if dropout:
        _check_masks_fit(model, name)
        _check_masks_fit(model, model.architecture.table_width_key)
        _refuse_masks_of_nodes(model)


def _check_masks_fit(model: ModelConfig, name: str) -> None:
    """Refuse dropout on rows, whose width is the key `name`, that masks of whole bytes do not cover."""
    hidden = int(getattr(model.config, name))
    if hidden % DROPOUT_MULTIPLE:
        for key, rule in model.architecture.keys.items():
            if isinstance(rule, Number) and rule.drops_hidden and getattr(model.config, key, None):
                raise _refusal(
                    model.path,
                    f"{name} is {hidden} with {key} {getattr(model.config, key):g}: dropout needs a multiple of"
                    f" {DROPOUT_MULTIPLE}",
                    "export with --no-dropout",
                )


def _refuse_masks_of_nodes(model: ModelConfig) -> None:
    for key, rule in model.architecture.keys.items():
        if isinstance(rule, Number) and rule.drops_nodes and getattr(model.config, key):
            raise _refusal(
                model.path,
                f"{key} is {getattr(model.config, key):g}: FFNs are split, and have no place for its dropout",
                "export with --no-dropout",
            )


def _transformers_config(architecture: Architecture, values: Mapping[str, Any], path: Path) -> Any:
    package = transformers_package()
    with guarded("transformers refuses it", str(path), _DECIDES):
        return getattr(package, architecture.config_class)(**values)


def _refusal(path: Path, message: str, hint: str) -> Unavailable:
    return Unavailable(message, where=str(path), hint=hint)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) and value.isidentifier() else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
