"""Changes on their way: 8 bits by blocks, what rounding takes away, and what is refused of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_far.fleet.exchange import Form
from edge_far.fleet.terms import Refused
from edge_far.fleet.traffic import BLOCK, Residual, bytes_of, packed, unpacked

SHAPES = {"a": (3, 100), "b": (7,), "c": (2, 5, 11), "zeros": (2 * BLOCK,)}
FORM = Form(SHAPES)


def change(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    found = {name: (random.normal(size=shape) * 1e-3).astype(np.float32) for name, shape in SHAPES.items()}
    found["zeros"][:] = 0
    return found


def test_float32_travels_as_it_is() -> None:
    sent = change(0)
    back = unpacked(packed(sent, "float32"), "float32", FORM, "x")
    assert all(np.array_equal(back[name], sent[name]) for name in sent)


def test_8_bits_are_within_half_a_step_of_their_block() -> None:
    sent = change(0)
    wire = packed(sent, "int8")
    assert {name: array.dtype.name for name, array in wire.items()} == {"values": "int8", "scales": "float32"}
    back = unpacked(wire, "int8", FORM, "x")
    vector = np.concatenate([sent[name].reshape(-1) for name in sorted(sent)])
    found = np.concatenate([back[name].reshape(-1) for name in sorted(sent)])
    steps = np.repeat(wire["scales"], BLOCK)[: vector.size]
    assert np.all(np.abs(found - vector) <= 0.5 * steps * (1 + 1e-5))
    assert {name: array.shape for name, array in back.items()} == SHAPES and not back["zeros"].any()
    blocks = -(-FORM.size // BLOCK)
    assert bytes_of(wire) == FORM.size + 4 * blocks and bytes_of(sent) == 4 * FORM.size


@pytest.mark.parametrize(
    ("word", "spoil"),
    [
        ("names", {"values": None}),
        ("names", {"scales": None}),
        ("names", {"more": np.zeros(1, np.float32)}),
        ("type", {"values": np.zeros(FORM.size, np.uint8)}),
        ("shapes", {"values": np.zeros(FORM.size - 1, np.int8)}),
        ("shapes", {"scales": np.ones(1, np.float32)}),
        ("numbers", {"scales": np.full(-(-FORM.size // BLOCK), np.inf, np.float32)}),
        ("numbers", {"scales": np.full(-(-FORM.size // BLOCK), 3e38, np.float32)}),  # times 127: beyond float32
    ],
)
def test_what_8_bits_cannot_be_is_refused(word: str, spoil: dict[str, np.ndarray | None]) -> None:
    wire = {name: array for name, array in {**packed(change(0), "int8"), **spoil}.items() if array is not None}
    with pytest.raises(Refused) as refused:
        unpacked(wire, "int8", FORM, "node 7")
    assert refused.value.word == word


def test_over_many_rounds_error_feedback_loses_nothing_but_the_last_residual(tmp_path: Path) -> None:
    residual = Residual.in_directory(tmp_path, "f" * 64, FORM)
    wanted = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    got = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    plain = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    largest = 0.0
    for number in range(60):
        # A direction that is always the same, a twentieth of a step of its block: rounding alone would lose it.
        new = change(number)
        new["b"] = np.full(7, np.abs(new["c"]).max() / 127 / 20, np.float32)
        rest = residual.read()
        asked = {name: new[name] + rest[name] for name in new}
        wire = packed(asked, "int8")
        largest = max(largest, float(wire["scales"].max()))
        sent = unpacked(wire, "int8", FORM, "x")
        residual.write(asked, sent)
        alone = unpacked(packed(new, "int8"), "int8", FORM, "x")
        for name in SHAPES:
            wanted[name] += new[name]
            got[name] += sent[name]
            plain[name] += alone[name]
    for name in SHAPES:
        assert np.abs(got[name] - wanted[name]).max() <= 0.5 * largest * 1.01
    assert not plain["b"].any() and wanted["b"].min() > largest  # without feedback all of it is lost


@pytest.mark.parametrize("content", [None, b"", b"not a safetensors file", b"\xff" * 64])
def test_a_residual_that_is_gone_or_damaged_counts_as_none(tmp_path: Path, content: bytes | None) -> None:
    residual = Residual.in_directory(tmp_path, "f" * 64, FORM)
    if content is not None:
        residual.path.write_bytes(content)
    assert all(not array.any() for array in residual.read().values())
    residual.write(change(0), change(1))
    other = Residual.in_directory(tmp_path, "e" * 64, FORM)
    assert any(array.any() for array in residual.read().values())
    assert all(not array.any() for array in other.read().values())
