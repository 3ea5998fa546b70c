"""The demo's data set: distinct, balanced, without leakage between splits, the same for a seed."""

from __future__ import annotations

import collections
import re
import string
import subprocess
import sys

import pytest

from edge_far.demo import generate as module
from edge_far.demo.generate import INTENTS, PER_INTENT, generate, normalise
from edge_far.demo.grammar import SPLITS
from edge_far.demo.slots import fillers


def folded(text: str) -> str:
    """Letters, digits and single spaces only, by another route than the module's."""
    kept = "".join(c for c in text.lower() if c in string.ascii_lowercase + string.digits + " ")
    return re.sub(" +", " ", kept).strip()


@pytest.mark.parametrize("seed", [0, 1, 7, 123456])
def test_every_sentence_is_distinct_and_every_intent_is_equally_frequent(seed: int) -> None:
    splits = generate(seed)
    texts = [folded(example.text) for examples in splits.values() for example in examples]
    assert len(texts) == len(set(texts)) >= 3000
    for split, examples in splits.items():
        counts = collections.Counter(example.label for example in examples)
        assert counts == {intent.label: PER_INTENT[split] for intent in INTENTS}


def test_there_are_at_least_12_intents_and_2000_training_sentences() -> None:
    assert len(INTENTS) == len({intent.label for intent in INTENTS}) >= 12
    assert len(generate(0)["train"]) >= 2000


def test_same_seed_same_data_whatever_the_hash_seed() -> None:
    code = "from edge_far.demo.generate import generate; print(generate(3))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{generate(3)}\n".encode()}
    assert generate(3) != generate(4)


def test_no_phrasing_is_shared_by_two_splits_or_two_intents() -> None:
    families = [family for intent in INTENTS for split in SPLITS for family in intent.families(split)]
    assert len(families) == len(set(families))


def test_no_test_sentence_is_a_training_sentence_with_other_slot_words() -> None:
    slots = (
        "room",
        "lamp",
        "percent",
        "degrees",
        "temperature",
        "time",
        "day",
        "weekday",
        "event",
        "audio",
        "door",
    )
    names = {folded(word) for slot in (*slots, "person") for split in SPLITS for word in fillers(slot, split)}
    openings = {folded(opening) for opening in module.OPENINGS}
    pattern = re.compile(r"\b(" + "|".join(sorted(names, key=len, reverse=True)) + r")\b")

    def skeleton(text: str) -> str:
        words = folded(text).split()
        return pattern.sub("_", " ".join(words[1:] if words[0] in openings else words))

    splits = generate(0)
    skeletons = {split: {skeleton(example.text) for example in splits[split]} for split in SPLITS}
    assert not skeletons["train"] & skeletons["test"]
    assert not skeletons["train"] & skeletons["eval"]
    assert not skeletons["eval"] & skeletons["test"]


def test_part_of_the_words_of_the_test_split_is_new() -> None:
    splits = generate(0)
    words = {split: {w for e in splits[split] for w in folded(e.text).split()} for split in ("train", "test")}
    assert {"deafening", "sweltering", "frosty", "chandelier", "attic"} <= words["test"] - words["train"]


def test_sentences_read_as_written() -> None:
    for examples in generate(2).values():
        for example in examples:
            assert not re.search(r"[\[\]{}|]|  ", example.text)
            assert example.text == example.text.strip()
            assert example.text.isascii() and example.text.isprintable()
            assert len(example.text.split()) <= 20


def test_typing_errors_and_careless_spelling_are_there() -> None:
    texts = [example.text for example in generate(0)["train"]]
    vocabulary = {w for i in INTENTS for s in SPLITS for f in i.families(s) for w in re.findall("[a-z]+", f.lower())}
    for slot in ("room", "lamp", "time", "day", "event", "audio", "door", "person", "weekday"):
        for split in SPLITS:
            vocabulary |= {w for filler in fillers(slot, split) for w in re.findall("[a-z]+", filler.lower())}
    plain = [text for text in texts if text[0].isupper() and "'" not in text and "," not in text]
    odd = [text for text in plain if set(re.findall("[a-z]+", text.lower())) - vocabulary - {"am", "t", "s"}]
    assert 0.05 < len(odd) / len(plain) < 0.25
    assert 0.4 < sum(text == text.lower() for text in texts) / len(texts) < 0.6


def test_too_few_phrasings_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.PER_INTENT, "eval", 100_000)
    with pytest.raises(ValueError, match="too few distinct sentences"):
        generate(0)


def test_normalise_ignores_case_and_punctuation() -> None:
    assert normalise("  I can't see,  OK? ") == normalise("i cant see ok") == "i cant see ok"
