"""Drawing sentences from phrasings."""

from __future__ import annotations

import random

from edge_far.demo.grammar import draw
from edge_far.demo.slots import fillers


def test_choices_and_empty_choices_give_exactly_the_sentences_written() -> None:
    rng = random.Random(0)
    drawn = {draw("[turn|switch] it on[ please|]", "train", rng) for _ in range(100)}
    assert drawn == {"turn it on", "turn it on please", "switch it on", "switch it on please"}


def test_slots_take_the_words_of_their_split_only() -> None:
    rng = random.Random(0)
    train = {draw("{room}", "train", rng) for _ in range(500)}
    test = {draw("{room}", "test", rng) for _ in range(500)}
    assert train == set(fillers("room", "train"))
    assert train < test
    assert "attic" in test - train
