"""MPNet: a bias of relative positions for all blocks; no token types; positions begin at 2, whatever pads.

transformers always asks for 32 buckets of distances, so the table must have as many.
"""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture, AttentionSlots
from edge_far.architectures.config_keys import BERT_KEYS, Whole, without
from edge_far.architectures.families.bert import BERT_FFN

__all__ = ["MPNET"]

BUCKETS = 32

MPNET = Architecture(
    name="mpnet",
    title="MPNet",
    config_class="MPNetConfig",
    model_classes=("MPNetForSequenceClassification", "MPNetModel"),
    encoder="mpnet",
    blocks="encoder.layer",
    ffn=BERT_FFN,
    attention=AttentionSlots("attention.attn", ("q", "k", "v"), "attention.attn.o"),
    last_layer="classifier.out_proj",
    keys={
        **without(BERT_KEYS, "type_vocab_size", "classifier_dropout"),
        "relative_attention_num_buckets": Whole(low=BUCKETS),
    },
    first_position=2,
    position_bias="encoder",
    head_dropouts=("hidden_dropout_prob",),
)
