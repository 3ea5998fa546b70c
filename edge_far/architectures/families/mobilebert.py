"""MobileBERT: blocks narrower within than between, several FFNs in each, and NoNorm (x * weight + bias) for LayerNorm.

Queries and keys read one bottleneck, values the block's input as it is. An embedding is made of a token's and its
neighbours' rows; a text's last token has no neighbour, whatever it is padded with (models/exchanged/neighbours.py). The
head on a text reads the first token, with `classifier_activation` through a linear layer and a tanh.
"""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture, FfnSlots
from edge_far.architectures.config_keys import BERT_KEYS, Flag, Only, Whole, Words
from edge_far.architectures.families.bert import BERT_ATTENTION

__all__ = ["MOBILEBERT"]

MOBILEBERT = Architecture(
    name="mobilebert",
    title="MobileBERT",
    config_class="MobileBertConfig",
    model_classes=("MobileBertForSequenceClassification", "MobileBertModel"),
    encoder="mobilebert",
    blocks="encoder.layer",
    ffn=FfnSlots("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense", earlier="ffn"),
    attention=BERT_ATTENTION,
    last_layer="classifier",
    keys={
        **BERT_KEYS,
        "embedding_size": Whole(high=1 << 16),
        "intra_bottleneck_size": Whole(high=1 << 16),
        "num_feedforward_networks": Whole(high=1 << 6),
        "normalization_type": Words(("no_norm", "layer_norm")),
        "classifier_activation": Flag(),
        "trigram_input": Only((True,), "embeddings are known that read a token's neighbours too"),
        "use_bottleneck": Only((True,), "blocks are known that are narrower within"),
        "use_bottleneck_attention": Only((False,), "values are known to read a block's input, not its bottleneck"),
        "key_query_shared_bottleneck": Only((True,), "queries and keys are known to read one bottleneck"),
    },
    token_types="pairs",
    neighbours_in_embeddings=True,
    table_width_key="embedding_size",
    inner_width_key="intra_bottleneck_size",
)
