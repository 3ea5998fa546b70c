"""From which probability an answer is taken: the smallest at which those that are taken are right often enough.

Measured on held-out examples, each of which the model answers as it would a user. Knows no connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_far.application.answer import Answer
from edge_far.application.model import Model
from edge_far.errors import ConfigError
from edge_far.texts.data import Example

__all__ = ["Choice", "Measured", "choose_threshold", "measured", "must_give_one_label"]

DIGITS = 7  # probabilities have six; a threshold lies between two of them


@dataclass(frozen=True)
class Measured:
    """The probability of one answer, and whether it was right."""

    probability: float
    right: bool


@dataclass(frozen=True)
class Choice:
    """A threshold, the share of examples that it takes, and the share of those that were right."""

    threshold: float
    accepted: float
    accuracy: float
    examples: int


def measured(model: Model, examples: Iterable[Example]) -> list[Measured]:
    """Return how the model answers labelled examples; raises ConfigError where it gives no single label."""
    found = []
    for example in examples:
        answer = model.predict(example.text, example.text_pair)
        must_give_one_label(answer)
        found.append(Measured(answer.probability or 0.0, answer.label == example.label))  # type: ignore[arg-type]
    return found


def choose_threshold(answers: Sequence[Measured], target: float) -> Choice:
    """Return the smallest threshold at which the share `target` of those taken is right.

    It lies in the middle between two probabilities, and is 0 where all may be taken. Raises ConfigError (78) where no
    threshold reaches the target, or there is no example.
    """
    if not answers:
        raise ConfigError("there is no example to choose a threshold on", hint="give a file with labelled examples")
    ranked = sorted(answers, key=lambda answer: -answer.probability)
    chosen, best, right = None, 0.0, 0
    for count, answer in enumerate(ranked, 1):
        right += answer.right
        following = ranked[count].probability if count < len(ranked) else None
        if following == answer.probability:
            continue  # equal ones are taken together
        accuracy = right / count
        best = max(best, accuracy)
        if accuracy >= target:
            middle = 0.0 if following is None else round((answer.probability + following) / 2, DIGITS)
            chosen = Choice(middle, count / len(ranked), accuracy, len(ranked))
    if chosen is None:
        reached = f"at best {best:.1%} of those taken are right, on {len(ranked)} examples"
        raise ConfigError(f"no threshold reaches {target:.1%}: {reached}", hint="ask for less with --target-percent")
    return chosen


def must_give_one_label(answer: Answer) -> None:
    """Raise ConfigError (78) for an answer that is not one name with its probability."""
    if answer.label is not None and not (isinstance(answer.label, str) and isinstance(answer.probability, float)):
        raise ConfigError(
            "the model does not give a text one label with its probability", hint="an intent is one label"
        )
