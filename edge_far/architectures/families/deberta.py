"""DeBERTa-v2 and -v3: attention by content and by distance, apart; positions nowhere else, and no token types.

What all published models of these two have is required: queries and keys of distances by the content's own matrices,
both products with them. A convolution beside the first block (v2-xlarge) is refused.
"""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture, AttentionSlots
from edge_far.architectures.config_keys import BERT_KEYS, Activation, Number, Only, Whole, Words, without
from edge_far.architectures.families.bert import BERT_FFN

__all__ = ["DEBERTA_V2"]

_BOTH = (["p2c", "c2p"], ["c2p", "p2c"], "p2c|c2p", "c2p|p2c")

DEBERTA_V2 = Architecture(
    name="deberta-v2",
    title="DeBERTa-v2",
    config_class="DebertaV2Config",
    model_classes=("DebertaV2ForSequenceClassification", "DebertaV2Model"),
    encoder="deberta",
    blocks="encoder.layer",
    ffn=BERT_FFN,
    attention=AttentionSlots("attention.self", ("query_proj", "key_proj", "value_proj"), "attention.output.dense"),
    last_layer="classifier",
    keys={
        **without(BERT_KEYS, "type_vocab_size", "classifier_dropout"),
        "type_vocab_size": Only((0,), "its pairs have no token types"),
        "relative_attention": Only((True,), "its attention reads distances"),
        "position_biased_input": Only((False,), "positions are in its attention alone"),
        "share_att_key": Only((True,), "distances have the content's matrices"),
        "pos_att_type": Only(_BOTH, "both products with distances are computed"),
        "conv_kernel_size": Only((0,), "a convolution beside the first block is not known", may_lack=True),
        "norm_rel_ebd": Words(("none", "layer_norm")),
        "position_buckets": Whole(low=-1),
        "max_relative_positions": Whole(low=-1),
        "pooler_hidden_size": Whole(high=1 << 16),
        "pooler_hidden_act": Activation(),
        "pooler_dropout": Number(1.0, drops_hidden=True),
        "cls_dropout": Number(1.0, or_null=True, drops_hidden=True),
    },
    first_position=None,
    tables=("encoder.rel_embeddings", "encoder.LayerNorm"),
    masks_embeddings=True,
    distances_in_attention=True,
    needs_a_block=True,
    head_dropouts=("cls_dropout", "hidden_dropout_prob"),
)
