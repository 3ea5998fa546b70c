"""ALBERT: all blocks are one and the same, run again and again; embeddings are projected.

Several different blocks (num_hidden_groups, inner_group_num above 1) are no model that anyone published, and refused.
Attention holds its residual sum and LayerNorm, so its heads cannot be parted.
"""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture, AttentionSlots, FfnSlots
from edge_far.architectures.config_keys import BERT_KEYS, Number, Whole, without

__all__ = ["ALBERT"]

ALBERT = Architecture(
    name="albert",
    title="ALBERT",
    config_class="AlbertConfig",
    model_classes=("AlbertForSequenceClassification", "AlbertModel"),
    encoder="albert",
    blocks="encoder.albert_layer_groups.0.albert_layers",
    ffn=FfnSlots("ffn", "activation", "ffn_output"),
    attention=AttentionSlots("attention", ("query", "key", "value"), "attention.dense"),
    last_layer="classifier",
    keys={
        **without(BERT_KEYS, "classifier_dropout"),
        "embedding_size": Whole(high=1 << 16),
        "num_hidden_groups": Whole(high=1),
        "inner_group_num": Whole(high=1),
        "classifier_dropout_prob": Number(1.0, drops_hidden=True),
    },
    embeddings=("embeddings", "encoder.embedding_hidden_mapping_in"),
    token_types="pairs",
    head_dropouts=("classifier_dropout_prob",),
    table_width_key="embedding_size",
    one_block=True,
    heads_part=False,
)
