"""Writes source/ of a bundle: the files beside the weights with which transformers loads the trained model.

`edge-far merge --format transformers` copies them on the device, where there is no transformers to make them. They say
what the bundle computes: the task's labels and head, and the tokenizer as tokenizer.json has it, without code of
anybody.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edge_far.architectures.registry import ARCHITECTURES
from edge_far.far.pooling import MeanPooledClassifier
from edge_far.models.files import is_named_here, read_object
from edge_far.models.source import SourceModel
from edge_far.storage import write_json
from edge_far.tasks.interface import Task
from edge_far.texts.encode import Encoder

__all__ = ["write_source_files"]

# Of this machine or this run, or said by the weights themselves.
_NOT_THE_MODELS = ("_name_or_path", "_attn_implementation", "auto_map", "dtype", "torch_dtype")
# A special token's key in tokenizer_config.json, and its usual names, for a model that has no such file.
_SPECIAL_TOKENS = {
    "bos_token": (),
    "eos_token": (),
    "unk_token": ("[UNK]", "<unk>"),
    "sep_token": ("[SEP]", "</s>"),
    "cls_token": ("[CLS]", "<s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
_SETTINGS = ("special_tokens_map.json", "tokenizer_config.json")  # the second counts where both name a token


def write_source_files(directory: Path, source: SourceModel, task: Task, max_seq_len: int) -> None:
    """Create `directory` with config.json and tokenizer_config.json of the model as the bundle trains it."""
    directory.mkdir()
    write_json(directory / "config.json", _config(source, task))
    write_json(directory / "tokenizer_config.json", _tokenizer_settings(source, max_seq_len))


def _config(source: SourceModel, task: Task) -> dict[str, Any]:
    """Return config.json: the class that loads the weights, the labels of the rows of its head, the kind of problem."""
    config: dict[str, Any] = source.model.config.to_dict()
    document = {key: value for key, value in config.items() if key not in _NOT_THE_MODELS}
    classifier, encoder = ARCHITECTURES[source.architecture].model_classes
    pooled = isinstance(source.model, MeanPooledClassifier)
    name = encoder if pooled else classifier.replace("SequenceClassification", task.head_class)
    names = task.labels or [f"LABEL_{number}" for number in range(task.outputs)]
    document["architectures"] = [name]
    document["id2label"] = {str(number): label for number, label in enumerate(names)}
    document["label2id"] = {label: number for number, label in enumerate(names)}
    document["problem_type"] = task.problem_type
    return document


def _tokenizer_settings(source: SourceModel, max_seq_len: int) -> dict[str, Any]:
    """Return tokenizer_config.json: read tokenizer.json as it is, with the special tokens that the model names."""
    tokenizer = Tokenizer.from_file(str(source.tokenizer))
    named: dict[str, Any] = {}
    for file in _SETTINGS:
        if source.directory is not None and is_named_here(source.directory / file):
            named |= read_object(source.directory / file)
    tokens = {}
    for key, usual in _SPECIAL_TOKENS.items():
        told = named.get(key)
        told = told.get("content") if isinstance(told, dict) else told
        known = [
            token for token in (told, *usual) if isinstance(token, str) and tokenizer.token_to_id(token) is not None
        ]
        if known:
            tokens[key] = known[0]
    types = ["token_type_ids"] if ARCHITECTURES[source.architecture].token_types == "pairs" else []
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        "padding_side": "right",
        "truncation_side": "right",
        "clean_up_tokenization_spaces": bool(named.get("clean_up_tokenization_spaces", False)),
        "pad_token": tokenizer.id_to_token(Encoder(source.tokenizer, max_seq_len).pad_id),
        **tokens,
    }
