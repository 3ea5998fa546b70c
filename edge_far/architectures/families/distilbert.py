"""DistilBERT: modules and keys have names of their own, and there are no token types."""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture, AttentionSlots, FfnSlots
from edge_far.architectures.config_keys import COMMON_KEYS, Activation, Flag, Number, Whole

__all__ = ["DISTILBERT"]

DISTILBERT = Architecture(
    name="distilbert",
    title="DistilBERT",
    config_class="DistilBertConfig",
    model_classes=("DistilBertForSequenceClassification", "DistilBertModel"),
    encoder="distilbert",
    blocks="transformer.layer",
    ffn=FfnSlots("ffn.lin1", "ffn.activation", "ffn.lin2"),
    attention=AttentionSlots("attention", ("q_lin", "k_lin", "v_lin"), "attention.out_lin"),
    last_layer="classifier",
    keys={
        **COMMON_KEYS,
        "dim": Whole(high=1 << 16),
        "n_layers": Whole(high=1 << 10),
        "n_heads": Whole(high=1 << 10),
        "hidden_dim": Whole(high=1 << 18),
        "activation": Activation(),
        "dropout": Number(1.0, drops_hidden=True),
        "attention_dropout": Number(1.0),
        "seq_classif_dropout": Number(1.0, drops_hidden=True),
        "sinusoidal_pos_embds": Flag(),
    },
    first_position=None,
    head_dropouts=("seq_classif_dropout",),
    width_key="dim",
    activation_key="activation",
    other_names={"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"},
)
