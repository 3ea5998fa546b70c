"""RoBERTa, and XLM-RoBERTa and CamemBERT, which are the same model with SentencePiece vocabularies.

Positions begin behind the padding's, and all token types are zero.
"""

from __future__ import annotations

from dataclasses import replace

from edge_far.architectures.adapter import Architecture
from edge_far.architectures.config_keys import BERT_KEYS
from edge_far.architectures.families.bert import BERT_ATTENTION, BERT_FFN

__all__ = ["CAMEMBERT", "ROBERTA", "XLM_ROBERTA"]

ROBERTA = Architecture(
    name="roberta",
    title="RoBERTa",
    config_class="RobertaConfig",
    model_classes=("RobertaForSequenceClassification", "RobertaModel"),
    encoder="roberta",
    blocks="encoder.layer",
    ffn=BERT_FFN,
    attention=BERT_ATTENTION,
    last_layer="classifier.out_proj",
    keys=BERT_KEYS,
    token_types="zeros",
    first_position="padding",
)
XLM_ROBERTA = replace(
    ROBERTA,
    name="xlm-roberta",
    title="XLM-RoBERTa",
    config_class="XLMRobertaConfig",
    model_classes=("XLMRobertaForSequenceClassification", "XLMRobertaModel"),
)
CAMEMBERT = replace(
    ROBERTA,
    name="camembert",
    title="CamemBERT",
    config_class="CamembertConfig",
    model_classes=("CamembertForSequenceClassification", "CamembertModel"),
)
