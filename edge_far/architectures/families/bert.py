"""BERT, and the places that many others took over from it."""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture, AttentionSlots, FfnSlots
from edge_far.architectures.config_keys import BERT_KEYS

__all__ = ["BERT", "BERT_ATTENTION", "BERT_FFN"]

BERT_FFN = FfnSlots("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense")
BERT_ATTENTION = AttentionSlots("attention.self", ("query", "key", "value"), "attention.output.dense")

BERT = Architecture(
    name="bert",
    title="BERT",
    config_class="BertConfig",
    model_classes=("BertForSequenceClassification", "BertModel"),
    encoder="bert",
    blocks="encoder.layer",
    ffn=BERT_FFN,
    attention=BERT_ATTENTION,
    last_layer="classifier",
    keys=BERT_KEYS,
    token_types="pairs",
)
