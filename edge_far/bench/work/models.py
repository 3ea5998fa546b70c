"""Torch classifiers of a geometry, with random weights (workstation: needs torch and transformers)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig, DistilBertConfig, MPNetConfig

from edge_far.architectures.registry import TITLES, architecture_named
from edge_far.bench.work.geometries import GEOMETRIES, Geometry
from edge_far.far.pooling import MeanPooledClassifier
from edge_far.models.guard import guarded

__all__ = ["LABELS", "make_config", "make_model", "max_positions"]

LABELS = 2


def make_config(model: str, *, dropout: bool) -> Any:
    """Return the transformers configuration of a geometry's name, or of a directory with a config.json.

    Without `dropout` every dropout probability is zero. Raises Unavailable for a directory transformers cannot read.
    """
    if model in GEOMETRIES:
        config = _config_of(GEOMETRIES[model])
    else:
        hint = f"name a directory with a config.json of {TITLES}"
        with guarded("cannot read the model's configuration", model, hint):
            config = AutoConfig.from_pretrained(Path(model), num_labels=LABELS)
    if not dropout:
        for name in [name for name, value in vars(config).items() if "dropout" in name and value]:
            setattr(config, name, 0.0)
    return config


def make_model(config: Any, *, attention: str, seed: int, pooling: str = "cls") -> torch.nn.Module:
    """Return a classifier with random weights; `attention` is eager or sdpa, `pooling` cls or mean.

    Raises Unavailable.
    """
    torch.manual_seed(seed)
    with guarded("transformers cannot make this model", config.model_type, f"choose {TITLES}"):
        model: torch.nn.Module = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
    return MeanPooledClassifier(model, seed) if pooling == "mean" else model


def max_positions(config: Any) -> int:
    """Return the longest sequence; some models skip the first rows of their position table."""
    skipped = architecture_named(config.model_type).skipped_positions(config.pad_token_id)
    return int(config.max_position_embeddings) - skipped


def _config_of(geometry: Geometry) -> Any:
    common = {
        "vocab_size": geometry.vocabulary,
        "max_position_embeddings": geometry.positions,
        "num_labels": LABELS,
    }
    if geometry.architecture == "distilbert":
        return DistilBertConfig(
            dim=geometry.hidden,
            n_layers=geometry.blocks,
            n_heads=geometry.heads,
            hidden_dim=geometry.ffn,
            **common,
        )
    kind = MPNetConfig if geometry.architecture == "mpnet" else BertConfig
    return kind(
        hidden_size=geometry.hidden,
        num_hidden_layers=geometry.blocks,
        num_attention_heads=geometry.heads,
        intermediate_size=geometry.ffn,
        **common,
    )
