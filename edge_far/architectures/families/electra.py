"""ELECTRA: BERT's blocks; embeddings may be narrower, and are then projected; the head's activation is a GELU."""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture
from edge_far.architectures.config_keys import BERT_KEYS, Whole
from edge_far.architectures.families.bert import BERT_ATTENTION, BERT_FFN

__all__ = ["ELECTRA"]

ELECTRA = Architecture(
    name="electra",
    title="ELECTRA",
    config_class="ElectraConfig",
    model_classes=("ElectraForSequenceClassification", "ElectraModel"),
    encoder="electra",
    blocks="encoder.layer",
    ffn=BERT_FFN,
    attention=BERT_ATTENTION,
    last_layer="classifier.out_proj",
    keys={**BERT_KEYS, "embedding_size": Whole(high=1 << 16)},
    embeddings=("embeddings", "embeddings_project"),
    token_types="pairs",
    table_width_key="embedding_size",
)
