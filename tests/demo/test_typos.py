"""Typing errors: one edit, the first letter kept, no word of the data set made."""

from __future__ import annotations

import random

from edge_far.demo.typos import NEIGHBOURS, add_typo


def test_one_word_changes_by_one_edit_and_keeps_its_first_letter() -> None:
    rng = random.Random(0)
    before = "the kitchen is on fire"
    kinds = set()
    for _ in range(300):
        after = add_typo(before, frozenset(), rng)
        right, wrong = before.split()[1], after.split()[1]
        assert after.split()[2:] == ["is", "on", "fire"] and after.startswith("the k")
        if len(wrong) == len(right) - 1:
            assert any(right[:i] + right[i + 1 :] == wrong for i in range(1, len(right)))
            kinds.add("drop")
        elif sorted(wrong) == sorted(right):
            kinds.add("swap")
            assert sum(a != b for a, b in zip(right, wrong, strict=True)) == 2
        else:
            ((a, b),) = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
            assert b in NEIGHBOURS[a]
            kinds.add("neighbour")
    assert kinds == {"drop", "swap", "neighbour"}


def test_never_makes_a_known_word_and_leaves_short_words_alone() -> None:
    rng = random.Random(0)
    assert add_typo("turn it on now", frozenset(), rng) == "turn it on now"
    every = {add_typo("lower", frozenset(), rng) for _ in range(500)} - {"loser"}
    assert {add_typo("lower", every, rng) for _ in range(200)} <= {"lower", "loser"}


def test_neighbouring_keys_are_mutual_and_single_letters() -> None:
    assert set(NEIGHBOURS) == set("abcdefghijklmnopqrstuvwxyz")
    assert all(set(near) <= set(NEIGHBOURS) - {key} for key, near in NEIGHBOURS.items())
