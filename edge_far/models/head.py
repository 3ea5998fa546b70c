"""The rows of a classifier's head, and which label each is: kept, put into the data's order, or made new.

A head's rows mean the labels of config.json (`id2label`), the data's labels are sorted. Rows are taken over only where
both have the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from edge_far.errors import Unavailable
from edge_far.models.config import ModelConfig

__all__ = ["HEAD", "Head", "fit_head", "last_layer", "saved_labels"]

# What a sequence classifier has on top of its encoder.
HEAD = re.compile(r"^(classifier|pre_classifier|head|qa_outputs)\.|(^|\.)pooler\.")
_UNNAMED = re.compile(r"LABEL_\d+")
SHOWN = 3


@dataclass(frozen=True)
class Head:
    """What became of the head, and why, in one sentence; `lost` says that a trained one was not taken over."""

    kind: Literal["kept", "reordered", "new"]
    why: str
    lost: bool = False


def saved_labels(model: ModelConfig) -> list[str] | None:
    """Return the label of each row by config.json's id2label, or None where it does not name every row once.

    Raises Unavailable where id2label is no object of names by row number.
    """
    found = model.document.get("id2label")
    if found is None:
        return None
    if not isinstance(found, dict):
        raise _wrong(model, f'id2label is {_kind(found)}, not an object such as {{"0": "off"}}')
    names: dict[int, str] = {}
    for key, value in found.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise _wrong(model, f"id2label has the key {key[:40]!r}, which is no row number")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise _wrong(model, f"id2label.{key} is {_kind(value)}, not a name")
        names[int(key)] = str(value)
    if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
        return None
    return [names[number] for number in range(len(names))]


def fit_head(
    model: nn.Module,
    config: ModelConfig,
    labels: Sequence[str],
    loading: Mapping[str, Any],
    seed: int,
    problem_type: str | None = None,
    head_class: str = "SequenceClassification",
) -> Head:
    """Bring the head of a loaded classifier into the order of `labels`, in place, or make its last layer new.

    Without labels its outputs are numbers. With a `problem_type` (transformers' word for the task) a head that
    config.json says was trained for another is made new. `head_class` ends the name of transformers' class.

    `loading` is transformers' account: what it found missing, or of another size, is new already.
    """
    last = last_layer(config, head_class)
    missing, mismatched = _names(loading["missing_keys"]), _names(loading["mismatched_keys"])
    new = missing | mismatched
    if f"{last}.weight" in missing:
        return Head("new", "the model has none")
    layer = model.get_submodule(last)
    if head_class == "QuestionAnswering":
        reason = _of_another_class(config, head_class)
        if reason is None and not any(HEAD.search(name) for name in new):
            return Head("kept", "it finds answers already")
        _make_new(layer, config, seed)
        return Head("new", reason or "the model's is not complete, or has not two rows", lost=True)
    saved = saved_labels(config)
    if reason := _of_another_task(config, labels, problem_type):
        if f"{last}.weight" not in new:
            _make_new(layer, config, seed)
        return Head("new", reason, lost=True)
    if any(HEAD.search(name) for name in new):
        if f"{last}.weight" not in new:
            _make_new(layer, config, seed)
        return Head("new", _rows(loading, last, len(labels)) or "the model's is not complete", lost=True)
    if reason := _unlike(config, saved, labels, head_class):
        _make_new(layer, config, seed)
        return Head("new", reason, lost=True)
    assert saved is not None
    order = _order(saved, labels)
    if order is None:
        _make_new(layer, config, seed)
        return Head("new", f"its labels ({_some(saved)}) are not the data's ({_some(labels)})", lost=True)
    if order == list(range(len(order))):
        return Head("kept", "its labels are the data's")
    with torch.no_grad():
        layer.weight.copy_(layer.weight[order].clone())
        layer.bias.copy_(layer.bias[order].clone())
    return Head("reordered", f"its labels are the data's, in another order ({_some(saved)})")


def last_layer(config: ModelConfig, head_class: str) -> str:
    """Return the path of the linear layer that makes the logits."""
    named = {"TokenClassification": "classifier", "QuestionAnswering": config.architecture.answer_head[-1]}
    return named.get(head_class, config.architecture.last_layer)


def _of_another_task(config: ModelConfig, labels: Sequence[str], problem_type: str | None) -> str | None:
    """Return why the head's rows do not mean what the data's labels do, or None."""
    if not labels:
        return "numbers are learned on a scale of their own"
    found = config.document.get("problem_type")
    return None if problem_type is None or found in (None, problem_type) else f"the model's is for {found}"


def _unlike(config: ModelConfig, saved: Sequence[str] | None, labels: Sequence[str], head_class: str) -> str | None:
    """Return why the rows cannot be told apart by name, or None."""
    if reason := _of_another_class(config, head_class):
        return reason
    if saved is None:
        return "config.json does not name each of its rows once (id2label)"
    if all(map(_UNNAMED.fullmatch, saved)) and _order(saved, labels) is None:
        return f"its rows have no names in config.json ({_some(saved)}); name them in id2label to keep it"
    return None


def _of_another_class(config: ModelConfig, head_class: str) -> str | None:
    """Return why the head is none for this, by the class that config.json names, or None."""
    classes = config.document.get("architectures")
    if isinstance(classes, list) and classes and f"For{head_class}" not in str(classes[0]):
        return f"the model's is that of a {classes[0]}"
    return None


def _order(saved: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """Return the row of each label, or None.

    Names that differ in case alone are the same where that is clear; a row without a name, LABEL_3, is the label 3.
    """
    for fold in (str, str.casefold, _without_prefix):
        rows = {fold(name): row for row, name in enumerate(saved)}
        wanted = [fold(label) for label in labels]
        if len(rows) == len(saved) and len(set(wanted)) == len(labels) and rows.keys() == set(wanted):
            return [rows[name] for name in wanted]
    return None


def _without_prefix(name: str) -> str:
    return name.removeprefix("LABEL_")


def _make_new(layer: Any, config: ModelConfig, seed: int) -> None:
    """Fill a layer as transformers does a missing one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.normal_(0.0, float(config.config.initializer_range), generator=generator)
        layer.bias.zero_()


def _rows(loading: Mapping[str, Any], last: str, labels: int) -> str | None:
    """Return in words that the file's head has another number of rows, or None."""
    for key in loading["mismatched_keys"]:
        if isinstance(key, tuple) and key[0] == f"{last}.weight":
            return f"it has {int(key[1][0])} rows, the data {labels} labels"
    return None


def _names(keys: Any) -> set[str]:
    return {str(key[0]) if isinstance(key, tuple) else str(key) for key in keys}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown


def _kind(value: object) -> str:
    kinds = {list: "an array", str: "a text", bool: "true or false", dict: "an object", type(None): "null"}
    return kinds.get(type(value), "a number")


def _wrong(model: ModelConfig, message: str) -> Unavailable:
    return Unavailable(message, where=str(model.path), hint="correct it, or remove id2label and label2id")
