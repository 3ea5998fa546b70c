"""ModernBERT: rotary positions, gated FFNs, windows of attention in most blocks, LayerNorms before, biases nowhere.

The original has query, key and value as one matrix, and a gated FFN's two inner ones as another; here each is a linear
of its own (models/exchanged/joined.py). The last LayerNorm stands behind all blocks.
"""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture, AttentionSlots, FfnSlots
from edge_far.architectures.config_keys import COMMON_KEYS, Activation, Flag, Number, Rotations, Whole, Words

__all__ = ["MODERNBERT"]

_KINDS = ("full_attention", "sliding_attention")
_QUERY_KEY_VALUE = ("attn.inner.query", "attn.inner.key", "attn.inner.value")

MODERNBERT = Architecture(
    name="modernbert",
    title="ModernBERT",
    config_class="ModernBertConfig",
    model_classes=("ModernBertForSequenceClassification", "ModernBertModel"),
    encoder="model",
    blocks="layers",
    ffn=FfnSlots("mlp.inner", "mlp.act", "mlp.Wo", gate="mlp.gate"),
    attention=AttentionSlots("attn.inner", ("query", "key", "value"), "attn.Wo"),
    last_layer="classifier",
    keys={
        **COMMON_KEYS,
        "hidden_size": Whole(high=1 << 16),
        "num_hidden_layers": Whole(high=1 << 10),
        "num_attention_heads": Whole(high=1 << 10),
        "intermediate_size": Whole(high=1 << 18),
        "hidden_activation": Activation(),
        "classifier_activation": Activation(),
        "norm_eps": Number(1.0),
        "norm_bias": Flag(),
        "attention_bias": Flag(),
        "mlp_bias": Flag(),
        "classifier_bias": Flag(),
        "embedding_dropout": Number(1.0, drops_hidden=True),
        "attention_dropout": Number(1.0, drops_hidden=True),
        "mlp_dropout": Number(1.0, drops_nodes=True),
        "classifier_dropout": Number(1.0, drops_hidden=True),
        "classifier_pooling": Words(("cls", "mean")),
        "local_attention": Whole(low=2),
        "layer_types": Words(_KINDS, many=True),
        "global_attn_every_n_layers": Whole(),
        "rope_parameters": Rotations(_KINDS),
        "global_rope_theta": Number(1e12),
        "local_rope_theta": Number(1e12),
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), Whole(low=0, or_null=True)),
    },
    first_position=None,
    windows=True,
    after_blocks=("final_norm",),
    joined={"attn.Wqkv": _QUERY_KEY_VALUE, "mlp.Wi": ("mlp.inner", "mlp.gate")},
    pooling_key="classifier_pooling",
    answer_head=("head", "drop", "classifier"),
    head_dropouts=("classifier_dropout",),
    activation_key="hidden_activation",
)
