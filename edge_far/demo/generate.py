"""The demo's data set: smart-home sentences with 16 intents, drawn from our own phrasings.

Neighbouring intents share their words and differ in what is meant. The splits share no phrasing, part of the
test's words occur nowhere in training, and no two sentences of the whole set are equal after normalisation. A
seed gives one data set. Standard library only.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from edge_far.demo.grammar import SPLITS, Intent, draw
from edge_far.demo.intents import alarm, climate, door, light, sound
from edge_far.demo.typos import add_typo
from edge_far.texts.data import Example

__all__ = ["INTENTS", "PER_INTENT", "generate", "normalise"]

INTENTS: tuple[Intent, ...] = (
    *light.INTENTS, *climate.INTENTS, *alarm.INTENTS, *sound.INTENTS, *door.INTENTS,
)  # fmt: skip
PER_INTENT = {"train": 128, "eval": 24, "test": 48}  # sentences of each intent
TYPO_SHARE = 0.15
OPENING_SHARE = 0.15
CASUAL_SHARE = 0.5  # lower case, no full stop, no apostrophes: typed in haste
OPENINGS = ("hey, ", "ok, ", "listen, ", "sorry, ", "hi, ", "well, ")
FAMILY_DRAWS = 40  # draws of one family before it counts as used up


def generate(seed: int) -> dict[str, list[Example]]:
    """Return the shuffled examples of "train", "eval" and "test"; a split has equal shares of all intents."""
    rng = random.Random(seed)
    vocabulary = _vocabulary()
    seen: set[str] = set()
    splits = {}
    for split in SPLITS:
        examples = [
            Example(text, label=intent.label)
            for intent in INTENTS
            for text in _sentences(intent, split, seen, vocabulary, rng)
        ]
        rng.shuffle(examples)
        splits[split] = examples
    return splits


def normalise(text: str) -> str:
    """Return a sentence in lower case without punctuation: two equal ones count as the same sentence."""
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


def _sentences(
    intent: Intent, split: str, seen: set[str], vocabulary: frozenset[str], rng: random.Random
) -> Iterator[str]:
    """Yield PER_INTENT sentences, the intent's families in turn; `seen` grows by each."""
    families = list(intent.families(split))
    wanted = PER_INTENT[split]
    while wanted:
        if not families:
            raise ValueError(f"the phrasings of {intent.label} ({split}) give too few distinct sentences")
        for family in tuple(families):
            text = _new_sentence(family, split, seen, vocabulary, rng)
            if text is None:
                families.remove(family)
            elif wanted:
                wanted -= 1
                yield text


def _new_sentence(
    family: str, split: str, seen: set[str], vocabulary: frozenset[str], rng: random.Random
) -> str | None:
    for _ in range(FAMILY_DRAWS):
        clean = draw(family, split, rng)
        if normalise(clean) in seen:
            continue
        text = _styled(clean, vocabulary, rng)
        if normalise(text) not in seen:
            seen.update((normalise(clean), normalise(text)))
            return text
    return None


def _styled(clean: str, vocabulary: frozenset[str], rng: random.Random) -> str:
    """Return the sentence as somebody might type it: an opening, a typing error, careless spelling."""
    text = clean
    if rng.random() < OPENING_SHARE:
        text = rng.choice(OPENINGS) + text
    if rng.random() < TYPO_SHARE:
        text = add_typo(text, vocabulary, rng)
    if rng.random() < CASUAL_SHARE:
        return re.sub(r"[^a-z0-9:. ]", "", text.lower())
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _vocabulary() -> frozenset[str]:
    """Return every word of every phrasing, which no typing error may produce."""
    families = (family for intent in INTENTS for split in SPLITS for family in intent.families(split))
    return frozenset(word for family in families for word in re.findall(r"[a-z]+", family.lower()))
