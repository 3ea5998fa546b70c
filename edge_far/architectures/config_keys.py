"""What may stand in config.json under a key: the kinds of values, and the keys that most encoders share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ACTIVATIONS",
    "BERT_KEYS",
    "COMMON_KEYS",
    "SAME_ACTIVATION",
    "Activation",
    "Flag",
    "Key",
    "Number",
    "Only",
    "Rotations",
    "Whole",
    "Words",
    "without",
]

# What a gradient rule is there for (compile/gradient/rules.py), and names of one function.
ACTIVATIONS = ("gelu", "gelu_new", "silu", "relu", "tanh", "linear")
SAME_ACTIVATION = {"gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_new", "swish": "silu"}
_LARGEST = 1 << 24


@dataclass(frozen=True)
class Whole:
    """A whole number within limits; `or_null` allows null."""

    low: int = 1
    high: int = _LARGEST
    or_null: bool = False

    def wrong(self, value: object) -> str | None:
        """Return what is wrong with a value, or None."""
        if value is None and self.or_null:
            return None
        if type(value) is int and self.low <= value <= self.high:
            return None
        return f"not a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Number:
    """A number from 0 to below `end`; `or_null` allows null.

    `drops_hidden` marks a dropout whose mask is as wide as the hidden size; attention's is as long as the text.
    `drops_nodes` marks one whose mask is as wide as an FFN, which has no place where that is split.
    """

    end: float
    or_null: bool = False
    drops_hidden: bool = False
    drops_nodes: bool = False

    def wrong(self, value: object) -> str | None:
        """Return what is wrong with a value, or None."""
        if value is None and self.or_null:
            return None
        a_number = isinstance(value, int | float) and not isinstance(value, bool)
        if a_number and 0 <= value < self.end:  # type: ignore[operator]
            return None
        return f"not a number from 0 to below {self.end:g}"


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def wrong(self, value: object) -> str | None:
        """Return what is wrong with a value, or None."""
        return None if isinstance(value, bool) else "neither true nor false"


@dataclass(frozen=True)
class Activation:
    """The name of a function that training on the device knows."""

    def wrong(self, value: object) -> str | None:
        """Return what is wrong with a value, or None."""
        known = isinstance(value, str) and value in (*ACTIVATIONS, *SAME_ACTIVATION)
        return None if known else f"and training knows {', '.join(ACTIVATIONS)} alone"


@dataclass(frozen=True)
class Only:
    """One of a few values, without which the model would be another; `may_lack` allows the file to say nothing."""

    known: tuple[object, ...]
    why: str
    may_lack: bool = False

    def wrong(self, value: object) -> str | None:
        """Return what is wrong with a value, or None."""
        same = any(value == each and type(value) is type(each) for each in self.known)
        return None if same or (value is None and self.may_lack) else f"and {self.why}"


@dataclass(frozen=True)
class Words:
    """One of some words, or with `many` a list of them."""

    known: tuple[str, ...]
    many: bool = False

    def wrong(self, value: object) -> str | None:
        """Return what is wrong with a value, or None."""
        listed = value if self.many and isinstance(value, list) else [value]
        if isinstance(value, list) == self.many and all(word in self.known for word in listed):
            return None
        return f"not {'a list of ' if self.many else ''}{' or '.join(self.known)}"


@dataclass(frozen=True)
class Rotations:
    """How positions are rotated in each kind of block: plainly, by the powers of a base."""

    kinds: tuple[str, ...]

    def wrong(self, value: object) -> str | None:
        """Return what is wrong with a value, or None."""
        if isinstance(value, dict) and set(value) <= set(self.kinds) and all(map(self._plain, value.values())):
            return None
        return "and what is known is rope_type default with a rope_theta, for each kind of attention"

    def _plain(self, each: object) -> bool:
        if not isinstance(each, dict) or not set(each) <= {"rope_type", "rope_theta"}:
            return False
        return each.get("rope_type", "default") == "default" and Number(1e12).wrong(each.get("rope_theta", 1.0)) is None


Key = Whole | Number | Flag | Activation | Only | Words | Rotations

COMMON_KEYS: Mapping[str, Key] = {
    "vocab_size": Whole(),
    "max_position_embeddings": Whole(),
    "initializer_range": Number(10.0),
    "pad_token_id": Whole(low=0, or_null=True),
}
BERT_KEYS: Mapping[str, Key] = {
    **COMMON_KEYS,
    "hidden_size": Whole(high=1 << 16),
    "num_hidden_layers": Whole(high=1 << 10),
    "num_attention_heads": Whole(high=1 << 10),
    "intermediate_size": Whole(high=1 << 18),
    "hidden_act": Activation(),
    "hidden_dropout_prob": Number(1.0, drops_hidden=True),
    "attention_probs_dropout_prob": Number(1.0),
    "classifier_dropout": Number(1.0, or_null=True, drops_hidden=True),
    "type_vocab_size": Whole(),
    "layer_norm_eps": Number(1.0),
}


def without(keys: Mapping[str, Key], *absent: str) -> dict[str, Key]:
    """Return the keys but for some, which an architecture does not have or reads in a way of its own."""
    return {key: rule for key, rule in keys.items() if key not in absent}
