"""The rungs by name, and what is frozen below the cut."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from edge_far.bundles.rungs import is_rung
from edge_far.errors import ConfigError, Unavailable
from edge_far.far.heads import find_attention_blocks
from edge_far.far.method import cut_of, learning_modules, refuse_unfit, select_above_cut
from edge_far.far.nodes import find_ffn_blocks
from edge_far.far.reconfigure import reconfigure, trained_parameters
from tests.tiny_models import WITH_LATER_ONES, make_tiny


def test_names() -> None:
    assert [cut_of(name, 6) for name in ("far", "full", "top-6", "top-2", "top-1", "head")] == [0, 0, 0, 4, 5, 6]
    assert all(map(is_rung, ("head", "far", "full", "top-1", "top-12")))
    assert not any(map(is_rung, ("top-0", "top-", "top-1.5", "top-" + "9" * 5000, "heads", "", "TOP-1")))


@pytest.mark.parametrize(("name", "message"), [("top-7", "6 blocks, not 7"), ("last", "is not a method")])
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cut_of(name, 6)


@pytest.mark.parametrize("architecture", WITH_LATER_ONES)
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_nothing_below_the_cut_trains(architecture: str, cut: int) -> None:
    model = make_tiny(architecture)
    blocks = find_ffn_blocks(model)
    selection = select_above_cut(model, "first", 0.5, None, cut)
    assert [len(learners) for learners in selection.learners] == [0] * cut + [32] * (2 - cut)
    reconfigure(model, selection)
    trained = trained_parameters(model, cut=cut)
    frozen = tuple(f"{block.path}." for block in blocks[:cut])
    assert not any(name.startswith(frozen) for name in trained) or not cut
    assert any(name.startswith("classifier") for name in trained)
    assert all(f"{block.path}." in " ".join(trained) for block in blocks[cut:])
    if cut:
        first = learning_modules(model, cut, list(trained))
        if cut == 1:
            assert first == [blocks[1].path]
        else:
            assert all("classifier" in path or "pooler" in path or path.startswith("head.") for path in first)


def test_embeddings_below_a_cut_cannot_train() -> None:
    with pytest.raises(ConfigError, match="below the cut"):
        trained_parameters(make_tiny("bert"), "train", 1)


def test_one_block_in_place_of_all_has_no_last_ones_and_no_parted_heads() -> None:
    model = make_tiny("albert")
    assert len(find_ffn_blocks(model)) == 1
    for method, attention, message in (("top-1", "full", "no last ones"), ("far", "heads", "cannot be parted")):
        with pytest.raises(ConfigError, match=message):
            refuse_unfit(model, method, attention)
        refuse_unfit(make_tiny("bert"), method, attention)
    for method in ("auto", "head", "far", "full"):
        refuse_unfit(model, method, "full")
    with pytest.raises(Unavailable, match="heads of ALBERT"):
        find_attention_blocks(model)
