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

from edge_far.errors import Unavailable
from edge_far.far.nodes import SUPPORTED_MODELS
from edge_far.models.directory import CONFIG
from edge_far.models.files import read_object
from edge_far.models.guard import guarded, transformers_package

__all__ = ["ModelConfig", "read_config"]

# What a gradient rule is there for (compile/gradient/rules.py), and names of one function.
ACTIVATIONS = ("gelu", "relu", "tanh", "linear")
_SAME_ACTIVATION = {"gelu_python": "gelu"}
DROPOUT_MULTIPLE = 8  # a byte holds the mask of eight numbers (compile/forward/dropout.py)
SHORTEST = 8  # tokens: the smallest --max-seq-len
_LARGEST = 1 << 24
_DECIDES = "correct it in config.json: it must say what the weights were trained with"


@dataclass(frozen=True)
class _Whole:
    """A whole number within limits; `or_null` allows null."""

    low: int = 1
    high: int = _LARGEST
    or_null: bool = False

    def wrong(self, value: object) -> str | None:
        if value is None and self.or_null:
            return None
        if type(value) is int and self.low <= value <= self.high:
            return None
        return f"not a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class _Number:
    """A number from 0 to below `end`; `or_null` allows null."""

    end: float
    or_null: bool = False

    def wrong(self, value: object) -> str | None:
        if value is None and self.or_null:
            return None
        a_number = isinstance(value, int | float) and not isinstance(value, bool)
        if a_number and 0 <= value < self.end:  # type: ignore[operator]
            return None
        return f"not a number from 0 to below {self.end:g}"


@dataclass(frozen=True)
class _Flag:
    """true or false."""

    def wrong(self, value: object) -> str | None:
        return None if isinstance(value, bool) else "neither true nor false"


@dataclass(frozen=True)
class _Activation:
    """The name of a function that training on the device knows."""

    def wrong(self, value: object) -> str | None:
        known = isinstance(value, str) and value in (*ACTIVATIONS, *_SAME_ACTIVATION)
        return None if known else f"and training knows {', '.join(ACTIVATIONS)} alone"


_Rule = _Whole | _Number | _Flag | _Activation
_COMMON: dict[str, _Rule] = {
    "vocab_size": _Whole(),
    "max_position_embeddings": _Whole(),
    "initializer_range": _Number(10.0),
    "pad_token_id": _Whole(low=0, or_null=True),
}
_BERT: dict[str, _Rule] = {
    **_COMMON,
    "hidden_size": _Whole(high=1 << 16),
    "num_hidden_layers": _Whole(high=1 << 10),
    "num_attention_heads": _Whole(high=1 << 10),
    "intermediate_size": _Whole(high=1 << 18),
    "hidden_act": _Activation(),
    "hidden_dropout_prob": _Number(1.0),
    "attention_probs_dropout_prob": _Number(1.0),
    "classifier_dropout": _Number(1.0, or_null=True),
    "type_vocab_size": _Whole(),
    "layer_norm_eps": _Number(1.0),
}
_KEYS: dict[str, dict[str, _Rule]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": {
        **_COMMON,
        "dim": _Whole(high=1 << 16),
        "n_layers": _Whole(high=1 << 10),
        "n_heads": _Whole(high=1 << 10),
        "hidden_dim": _Whole(high=1 << 18),
        "activation": _Activation(),
        "dropout": _Number(1.0),
        "attention_dropout": _Number(1.0),
        "seq_classif_dropout": _Number(1.0),
        "sinusoidal_pos_embds": _Flag(),
    },
}
# transformers reads these names too.
_OTHER_NAMES = {
    "distilbert": {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
}
# Masks of these are as wide as the hidden size; attention's are as long as the text.
_HIDDEN_DROPOUTS = ("hidden_dropout_prob", "classifier_dropout", "dropout", "seq_classif_dropout")


@dataclass(frozen=True)
class ModelConfig:
    """A config.json that was checked: `config` is transformers' own object, made of the checked keys alone.

    `document` is the whole file, for what is said about labels and tokenizer.
    """

    path: Path
    architecture: str
    config: Any
    document: Mapping[str, Any]

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table."""
        return int(self.config.vocab_size)

    @property
    def max_positions(self) -> int:
        """Tokens of the longest text; RoBERTa's positions begin behind the padding's."""
        positions = int(self.config.max_position_embeddings)
        return positions - (int(self.config.pad_token_id) + 1) if self.architecture == "roberta" else positions


def read_config(directory: Path, *, dropout: bool) -> ModelConfig:
    """Read and check the config.json of a directory; with `dropout`, also that masks fit its sizes.

    Raises Unavailable, which names the key, and what `read_object` raises.
    """
    path = directory / CONFIG
    document = read_object(path)
    architecture = _architecture(document, path)
    _refuse_other_models(document, path)
    named = {_OTHER_NAMES.get(architecture, {}).get(key, key): value for key, value in document.items()}
    values = {key: named[key] for key in _KEYS[architecture] if key in named}
    for key, value in values.items():
        rule = _KEYS[architecture][key]
        if wrong := rule.wrong(value):
            unknown_function = isinstance(rule, _Activation) and isinstance(value, str)
            hint = "choose another model: what it was trained with cannot be changed" if unknown_function else _DECIDES
            raise _refusal(path, f"{key} is {_shown(value)}, {wrong}", hint)
        if isinstance(rule, _Number) and value is not None:
            values[key] = float(value)  # transformers refuses 0 where it wants 0.0
    for key in ("hidden_act", "activation"):
        if key in values:
            values[key] = _SAME_ACTIVATION.get(values[key], values[key])
    config = _transformers_config(architecture, values, path)
    checked = ModelConfig(path, architecture, config, document)
    _check_sizes(checked, dropout)
    return checked


def _architecture(document: Mapping[str, Any], path: Path) -> str:
    kind = document.get("model_type")
    supported = tuple(_KEYS)
    if isinstance(kind, str) and kind in supported:
        return kind
    hint = f"supported are {', '.join(supported)}"
    if kind is not None:
        raise _refusal(path, f"model_type is {_shown(kind)}, which is not supported", hint)
    classes = document.get("architectures")
    for name in classes if isinstance(classes, list) else ():
        if (guess := SUPPORTED_MODELS.get(str(name))) is not None:
            hint = f'the model is a {name}: add "model_type": "{guess}"'
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
    if problem not in (None, "single_label_classification"):
        raise _refusal(
            path,
            f"problem_type is {_shown(problem)}, and training gives each text one label",
            "choose a model for single_label_classification, or remove the key to train it as one",
        )


def _check_sizes(model: ModelConfig, dropout: bool) -> None:
    config, path = model.config, model.path
    hidden, heads = int(config.hidden_size), int(config.num_attention_heads)
    name = "dim" if model.architecture == "distilbert" else "hidden_size"
    if hidden % heads:
        raise _refusal(path, f"{name} is {hidden}, which {heads} attention heads do not divide", _DECIDES)
    pad = config.pad_token_id
    if pad is None and model.architecture == "roberta":
        raise _refusal(
            path, "pad_token_id is null, and RoBERTa counts positions from it", "give the tokenizer's id of <pad>"
        )
    if pad is not None and pad >= model.vocabulary:
        raise _refusal(path, f"pad_token_id is {pad}, and vocab_size {model.vocabulary}", _DECIDES)
    if model.max_positions < SHORTEST:
        raise _refusal(
            path,
            f"max_position_embeddings is {config.max_position_embeddings}: texts of {model.max_positions} tokens",
            f"at least {SHORTEST} are needed",
        )
    if dropout and hidden % DROPOUT_MULTIPLE:
        for key in _HIDDEN_DROPOUTS:
            if getattr(config, key, None):
                raise _refusal(
                    path,
                    f"{name} is {hidden} with {key} {getattr(config, key):g}: dropout needs a multiple of"
                    f" {DROPOUT_MULTIPLE}",
                    "export with --no-dropout",
                )


def _transformers_config(architecture: str, values: Mapping[str, Any], path: Path) -> Any:
    package = transformers_package()
    classes = {
        "bert": package.BertConfig,
        "distilbert": package.DistilBertConfig,
        "roberta": package.RobertaConfig,
    }
    with guarded("transformers refuses it", str(path), _DECIDES):
        return classes[architecture](**values)


def _refusal(path: Path, message: str, hint: str) -> Unavailable:
    return Unavailable(message, where=str(path), hint=hint)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) and value.isidentifier() else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else text[:57] + "..."
