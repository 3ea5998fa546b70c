"""How a text's tokens become one vector: the architecture's own head on the first token, or the mean over all tokens.

A model that was pre-trained for mean pooling (most sentence encoders) has a first token that says little. The mean is
taken over the attention mask; a dropout and one linear layer stand on it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edge_far.errors import ConfigError, Unavailable
from edge_far.far.nodes import architecture_of

__all__ = ["POOLINGS", "MeanPooledClassifier", "SpanClassifier", "no_pooling", "pooling_of", "reads_mean"]

POOLINGS = ("auto", "cls", "mean")
_POOLING_FILE = Path("1_Pooling") / "config.json"


@dataclass
class _Output:
    logits: torch.Tensor


class SpanClassifier(nn.Module):
    """The question answering model of transformers, whose two outputs a token are logits [B, S, 2] here.

    Encoder and head keep their names. A dropout before a head of one layer is left out.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        architecture = architecture_of(model)
        self.architecture, self.config = architecture.name, model.config
        self.encoder_name = architecture.encoder
        self.add_module(self.encoder_name, model.get_submodule(self.encoder_name))
        self.head_names = architecture.answer_head
        for name in self.head_names:
            self.add_module(name, model.get_submodule(name))
        self.train(model.training)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **others: torch.Tensor) -> _Output:
        """Return logits [B, S, 2]."""
        encoder = self.get_submodule(self.encoder_name)
        hidden = encoder(input_ids=input_ids, attention_mask=attention_mask, **others).last_hidden_state
        for name in self.head_names:
            hidden = self.get_submodule(name)(hidden)
        return _Output(hidden)


class MeanPooledClassifier(nn.Module):
    """A new linear head on the mean of an encoder's token vectors.

    `model` is a sequence classifier of transformers, whose encoder is taken over and whose head is dropped. The encoder
    keeps its name (bert, distilbert, ...), so parameters keep theirs; the head is `classifier`.
    """

    def __init__(self, model: nn.Module, seed: int) -> None:
        super().__init__()
        architecture, config = architecture_of(model), model.config
        self.architecture, self.config = architecture.name, config
        self.encoder_name = architecture.encoder
        encoder = model.get_submodule(self.encoder_name)
        if hasattr(encoder, "pooler"):
            encoder.pooler = None
        self.add_module(self.encoder_name, encoder)
        rates = (getattr(config, key, None) for key in architecture.head_dropouts)
        self.dropout = nn.Dropout(next(rate for rate in rates if rate is not None))
        self.classifier = nn.Linear(int(config.hidden_size), int(config.num_labels))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.classifier.weight.normal_(0.0, float(config.initializer_range), generator=generator)
            self.classifier.bias.zero_()
        self.train(model.training)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        token_mask: torch.Tensor | None = None,
    ) -> _Output:
        """Return logits [B, labels]; `token_mask` [B, S] says which tokens count, by default the attention mask."""
        arguments = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            arguments["token_type_ids"] = token_type_ids
        if position_ids is not None:
            arguments["position_ids"] = position_ids
        hidden = self.get_submodule(self.encoder_name)(**arguments).last_hidden_state
        mask = (attention_mask if token_mask is None else token_mask).to(hidden.dtype)
        weights = mask / mask.sum(dim=1, keepdim=True)
        pooled = torch.matmul(weights[:, None, :], hidden).flatten(1)
        return _Output(self.classifier(self.dropout(pooled)))


def no_pooling(asked: str) -> str:
    """Return 'none', the pooling of a head that reads every token; raises ConfigError where another was asked for."""
    if asked != "auto":
        hint = "leave it out: a head on every token has no pooling"
        raise ConfigError(f"pooling is '{asked}', and the task reads every token", where="--pooling", hint=hint)
    return "none"


def reads_mean(model: nn.Module) -> bool:
    """Say whether a classifier's head reads the mean over all tokens; some of transformers' do by config.json."""
    key = architecture_of(model).pooling_key
    own = key is not None and getattr(model.config, key) == "mean"
    return own or isinstance(model, MeanPooledClassifier)


def pooling_of(directory: Path, asked: str) -> str:
    """Return 'cls' or 'mean' for `--pooling`: auto follows a sentence-transformers directory, else it is cls.

    Raises ConfigError for another word, Unavailable where the directory pools in a way that is not supported.
    """
    if asked not in POOLINGS:
        raise ConfigError(f"pooling is '{asked}'", where="--pooling", hint=f"one of {', '.join(POOLINGS)}")
    path = directory / _POOLING_FILE
    if asked != "auto" or not path.is_file():
        return "cls" if asked == "auto" else asked
    try:
        settings = json.loads(path.read_bytes())
        modes = sorted(key for key, on in settings.items() if key.startswith("pooling_mode_") and on is True)
    except (OSError, ValueError, AttributeError) as error:
        raise Unavailable(f"cannot be read: {error}", where=str(path), hint="give --pooling cls or mean") from error
    known = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    if len(modes) != 1 or modes[0] not in known:
        shown = ", ".join(modes) or "none"
        raise Unavailable(f"the pooling is {shown}", where=str(path), hint="give --pooling cls or mean to use that")
    return known[modes[0]]
