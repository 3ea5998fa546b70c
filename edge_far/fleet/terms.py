"""The terms of a round: what the server may ask for, and the words and figures with which a device may answer.

Both are closed lists, so that no sentence, and so no text or label, can leave a device by accident.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from edge_far.errors import DataError
from edge_far.json_file import Count, Damaged, Within, decode

__all__ = ["FIGURES", "OUTCOMES", "REASONS", "TRAFFIC", "Answer", "Order", "Refused", "other_bundle"]

TRAFFIC = ("float32", "int8")
OUTCOMES = ("trained", "declined", "offered")
# Why a device declines, or why a side refuses what the other one sent.
REASONS = {
    "bundle": "it has another bundle",
    "names": "the arrays have other names",
    "shapes": "an array has another shape",
    "type": "an array is not of the type that was agreed on",
    "numbers": "an array holds infinity or NaN",
    "norm": "the change is larger than the bound",
    "order": "the order is not one that this edge-far understands",
    "busy": "its own cycle is at work",
    "examples": "it has nothing to train on",
    "labels": "it has learnt labels of its own",
    "hours": "it is outside its allowed hours",
    "power": "it is not on mains, or its battery is low",
    "voltage": "its power supply is too weak",
    "temperature": "it is too hot",
    "memory": "too little memory is free",
    "disk": "too little disk is free",
    "time": "it would take longer than the round",
    "paused": "it had to pause, or was asked to stop",
    "failed": "it could not train; its own log says why",
    "away": "nobody works at its desk",
}
# What a device may tell in numbers. `examples` weighs it in the mean.
FIGURES = (
    "examples",
    "held_out_examples",
    "held_out_score",
    "final_loss",
    "norm",
    "seconds",
    "peak_rss_mib",
    "clipped",
)
Digest = Annotated[str, Within(64, 64)]


class Refused(DataError):
    """One side refuses what it was sent; `word` is one of REASONS."""

    def __init__(self, word: str, detail: str, *, where: str | None = None) -> None:
        super().__init__(f"{REASONS[word]}: {detail}", where=where)
        self.word = word


def other_bundle(here: str, there: str) -> str:
    """Return how the fingerprints of two bundles differ, and what to do, for the device's own log."""
    return (
        f"{here[:12]} here, {there[:12]} there; install the server's (deploy/install.sh --bundle), or give it this one"
    )


@dataclass(frozen=True)
class Order:
    """What the server asks of a device: a round of training, or to take the release of `round`.

    `clip_norm` and `proximal_mu` are 0 where unwanted; `learning_rate_percent` is of the bundle's rate; `wait_s` is
    how long the server waits for the answer.
    """

    kind: Literal["train", "release"]
    bundle: Digest
    round: Count
    epochs: Annotated[int, Within(1, 100)] = 1
    learning_rate_percent: Annotated[float, Within(0.1, 1000)] = 100.0
    traffic: Literal["float32", "int8"] = "float32"
    clip_norm: Annotated[float, Within(0, 1e6)] = 0.0
    most_norm: Annotated[float, Within(1e-6, 1e6)] = 100.0
    proximal_mu: Annotated[float, Within(0, 1e3)] = 0.0
    wait_s: Annotated[float, Within(1, 1e6)] = 3600.0
    seed: Count = 0

    def document(self) -> dict[str, Any]:
        """Return it as scalars by name."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Order:
        """Return the order that scalars by name say; raises Refused for one that is none."""
        try:
            order: Order = decode(cls, dict(document), "order")
        except Damaged as error:
            raise Refused("order", str(error)) from error
        return order


@dataclass(frozen=True)
class Answer:
    """What a device says of an order: `reason` is one of REASONS, empty unless it declines; figures by FIGURES."""

    outcome: Literal["trained", "declined", "offered"]
    reason: str
    figures: Mapping[str, float]

    @classmethod
    def declined(cls, word: str) -> Answer:
        """Return the answer of a device that does not take part, for a reason of REASONS."""
        return cls("declined", word, {})

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Answer:
        """Return the answer that a document says; raises Refused where it says more than the terms allow."""
        try:
            answer: Answer = decode(cls, dict(document), "answer")
        except Damaged as error:
            raise Refused("order", str(error)) from error
        declined = answer.outcome == "declined"
        if declined != (answer.reason in REASONS) or (answer.reason and not declined):
            raise Refused("order", f"the reason {answer.reason[:40]!a} is none of the terms")
        if unknown := sorted(set(answer.figures) - set(FIGURES)):
            raise Refused("order", f"the figure {unknown[0][:40]!a} is none of the terms")
        if not all(math.isfinite(value) for value in answer.figures.values()):
            raise Refused("order", "a figure is not a number")
        if answer.outcome == "trained":
            examples = answer.figures.get("examples", 0)
            if examples < 1 or examples != int(examples) or examples > 2**40:
                raise Refused("order", f"the number of examples is {examples:g}")
        return answer
