"""All architectures by name, and why some others that people bring are refused."""

from __future__ import annotations

from edge_far.architectures.adapter import Architecture
from edge_far.architectures.families.albert import ALBERT
from edge_far.architectures.families.bert import BERT
from edge_far.architectures.families.deberta import DEBERTA_V2
from edge_far.architectures.families.distilbert import DISTILBERT
from edge_far.architectures.families.electra import ELECTRA
from edge_far.architectures.families.mobilebert import MOBILEBERT
from edge_far.architectures.families.modernbert import MODERNBERT
from edge_far.architectures.families.mpnet import MPNET
from edge_far.architectures.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

__all__ = ["ARCHITECTURES", "TITLES", "architecture_named", "architecture_of_class", "why_refused"]

ARCHITECTURES: dict[str, Architecture] = {
    each.name: each
    for each in (
        *(BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, ELECTRA, MPNET, ALBERT, MODERNBERT, DEBERTA_V2),
        MOBILEBERT,
    )
}
TITLES = ", ".join(each.title for each in ARCHITECTURES.values())
_HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
_OF_CLASS = {
    name.replace(_HEADS[0], head): each
    for each in ARCHITECTURES.values()
    for name in each.model_classes
    for head in _HEADS
}

_DECODER = "a decoder, which reads from left to right"
_BOTH = "an encoder with a decoder"
_NOT_TEXT = "no model of texts alone"
_LOCAL = "its attention reads windows of a text"
_REFUSED = {
    "nomic_bert": "no adapter says where its gated FFNs and rotary positions are",
    "squeezebert": "its products are grouped convolutions",
    "convbert": "its attention is half convolution",
    "deberta": "its query, key and value are one matrix, with the rows of each head together",
    "xlm-roberta-xl": "its LayerNorms stand before attention and FFN",
    "roberta-prelayernorm": "its LayerNorms stand before attention and FFN",
    "ibert": "it computes in whole numbers",
    "funnel": "its blocks shorten the text",
    "longformer": _LOCAL,
    "big_bird": _LOCAL,
    "reformer": _LOCAL,
    "nystromformer": "its attention is an approximation by landmarks",
    "fnet": "it has no attention",
    "canine": "it reads characters, and its blocks shorten the text",
    "xlnet": "its attention reads a text in permuted orders",
    "xlm": "its blocks are not a list of modules that hold attention and FFN together",
    "flaubert": "its blocks are not a list of modules that hold attention and FFN together",
    **dict.fromkeys(("gpt2", "gpt_neo", "gpt_neox", "opt", "bloom", "llama", "mistral", "phi", "phi3"), _DECODER),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "falcon", "ctrl", "openai-gpt"), _DECODER),
    **dict.fromkeys(("t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian", "led", "m2m_100"), _BOTH),
    **dict.fromkeys(("clip", "vit", "whisper", "wav2vec2", "layoutlm", "layoutlmv3", "blip"), _NOT_TEXT),
}


def architecture_named(name: str) -> Architecture:
    """Return the architecture of a manifest or of a config.json that was checked; raises KeyError for another."""
    return ARCHITECTURES[name]


def architecture_of_class(name: str) -> Architecture | None:
    """Return the architecture of one of transformers' classes by its name, or None where it is not supported."""
    return _OF_CLASS.get(name)


def why_refused(name: str) -> str | None:
    """Return in a clause why an architecture is not supported, or None where nothing is known of it."""
    return _REFUSED.get(name)
