"""Identity of texts: what counts as the same text, and a split that never moves."""

from __future__ import annotations

import hashlib

from edge_far.daemon.store.identity import example_key, is_held_out, normalise


def test_same_text_whatever_case_spacing_and_unicode_form() -> None:
    assert normalise("  Lights\tON\u00a0please ") == "lights on please"
    assert example_key("Straße") == example_key("STRASSE")
    assert example_key("caf\u00e9") == example_key("cafe\u0301")
    assert example_key("\uff4c\uff49\uff47\uff48\uff54") == example_key("Light")


def test_different_texts_and_pairs_differ() -> None:
    pairs = [("a b", None), ("ab", None), ("a", "b"), ("a b", ""), ("b", "a")]
    assert len({example_key(text, pair) for text, pair in pairs}) == 5


def test_normalising_twice_changes_nothing() -> None:
    for code in list(range(0x20, 0x3000)) + list(range(0xF900, 0xFFFF)):
        text = f"x{chr(code)}y"
        assert normalise(normalise(text)) == normalise(text), hex(code)


def test_split_is_pinned_for_ever() -> None:
    """These keys and sides are on devices in the field: if this fails, examples would change sides."""
    key = hashlib.sha256(b"turn the lights on").digest()
    assert example_key("Turn the lights  on") == key
    number = int.from_bytes(hashlib.sha256(b"edge-far split 1\0" + key).digest()[:8], "big")
    assert [is_held_out(key, share) for share in (0.0, 1.0)] == [False, True]
    assert is_held_out(key, (number + 2**40) / 2**64) and not is_held_out(key, (number - 2**40) / 2**64)
    sides = "".join(str(int(is_held_out(example_key(f"sentence {i}"), 0.2))) for i in range(40))
    assert sides == SIDES


SIDES = "0010000000000000000000100000000001000000"


def test_share_is_met() -> None:
    held_out = sum(is_held_out(example_key(f"sentence {i}"), 0.2) for i in range(10_000))
    assert 1880 <= held_out <= 2120  # three standard deviations
