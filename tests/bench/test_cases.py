"""Which rows a table has."""

from __future__ import annotations

import pytest

from edge_far.bench.cases import ENGINES, Method, cases_for, choose_cases, method_named, method_of
from edge_far.bundles.manifest import SelectionInfo
from edge_far.errors import UsageError


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("full", Method("full", 1.0)),
        ("frozen-ffn", Method("frozen-ffn", 0.0)),
        ("far", Method("far-25", 0.25)),
        ("far-10", Method("far-10", 0.1)),
        ("far-2.5", Method("far-2.5", 0.025)),
        ("far-heads", Method("far-25-heads", 0.25, heads=True)),
        ("far-10-heads", Method("far-10-heads", 0.1, heads=True)),
        ("frozen-ffn-heads", Method("frozen-ffn-heads", 0.0, heads=True)),
        ("top-2", Method("top-2", 0.25, "top-2")),
        ("top-12-heads", Method("top-12-heads", 0.25, "top-12", heads=True)),
        ("head", Method("head", 0.25, "head")),
    ],
)
def test_methods_have_names(name: str, found: Method) -> None:
    assert method_named(name, 0.25) == found


@pytest.mark.parametrize(
    "name",
    [
        *("far-0", "far-100", "far-x", "far-nan", "10", "FULL", ""),
        *("top-0", "top-", "top-2-head", "heads", "-heads", "full-heads", "head-heads", "far-x-heads"),
    ],
)
def test_unknown_methods_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="unknown method"):
        method_named(name, 0.1)


def test_full_fine_tuning_trains_and_freezes_embeddings() -> None:
    methods = [method_named(name, 0.1) for name in ("full", "far")]
    titles = [case.title for case in cases_for(ENGINES, methods, ["int8", "fp32-compact"], "frozen")]
    assert titles == [
        "torch full sdpa embeddings trained",
        "torch full eager embeddings trained",
        "torch full sdpa",
        "torch full eager",
        "torch far-10 sdpa",
        "torch far-10 eager",
        "ort-training full fp32",
        "ort-training far-10 fp32",
        "edge-far full fp32 embeddings trained",
        "edge-far full fp32",
        "edge-far full fp32-compact embeddings trained",
        "edge-far full fp32-compact",
        "edge-far far-10 int8",
        "edge-far far-10 fp32-compact",
    ]


def test_a_row_appears_once_however_often_it_is_asked_for() -> None:
    twice = [method_named(name, 0.1) for name in ("far", "far-10")]
    assert len(cases_for(["edge-far"], twice, ["int8"], "train")) == 1


def test_rungs_are_rows_of_edge_far_and_frozen_blocks_have_a_fill() -> None:
    methods = [method_named(name, 0.1) for name in ("far", "far-heads", "top-2-heads", "head")]
    cases = cases_for(["torch", "edge-far"], methods, ["int8", "fp32"], "train")
    assert [case.title for case in cases] == [
        "torch far-10 sdpa embeddings trained",
        "torch far-10 eager embeddings trained",
        "edge-far far-10 int8 embeddings trained",
        "edge-far far-10 fp32 embeddings trained",
        "edge-far far-10-heads int8 embeddings trained",
        "edge-far top-2-heads int8",
        "edge-far top-2-heads int8 fill",
        "edge-far head int8",
        "edge-far head int8 fill",
    ]


def test_other_engines_have_no_rungs() -> None:
    with pytest.raises(UsageError, match=r"only edge-far has top-2-heads, head.*--engines|--engines.*only edge-far"):
        cases_for(["torch"], [method_named(name, 0.1) for name in ("top-2-heads", "head")], ["int8"], "frozen")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([], 14),
        (["torch full"], 4),
        (["torch full * trained"], 2),
        (["far-10 int8", "torch full sdpa embeddings trained"], 2),
        (["fill"], 2),
        (["top-* fill"], 1),
        (["edge-far full"], 2),
    ],
)
def test_rows_can_be_chosen(wanted: list[str], found: int) -> None:
    methods = [method_named(name, 0.1) for name in ("full", "far", "far-heads", "top-1-heads", "head")]
    cases = cases_for(["torch", "edge-far"], methods, ["int8"], "frozen")
    chosen = choose_cases(cases, wanted)
    assert len(chosen) == found and chosen == [case for case in cases if case in chosen]


def test_a_row_that_is_not_there_is_refused_with_those_that_are() -> None:
    cases = cases_for(["edge-far"], [method_named("head", 0.1)], ["int8"], "frozen")
    with pytest.raises(UsageError, match=r"no row is called 'top-1'") as refused:
        choose_cases(cases, ["head", "top-1"])
    assert "edge-far head int8, edge-far head int8 fill" in str(refused.value)


@pytest.mark.parametrize(
    ("rung", "retention", "attention", "name"),
    [
        ("far", 0.1, "full", "far-10"),
        ("far", 0.1, "heads", "far-10-heads"),
        ("full", 1.0, "full", "full"),
        ("top-2", 0.1, "heads", "top-2-heads"),
        ("top-2", 0.1, "full", "top-2"),
        ("head", 0.1, "full", "head"),
    ],
)
def test_a_bundle_is_named_by_what_trains_in_it(rung: str, retention: float, attention: str, name: str) -> None:
    selection = SelectionInfo(
        rung, 0, "random", retention, (), "frozen", "reset", 0, None, 0, attention, None, (), None, ""
    )
    method = method_of(selection)
    assert method.name == name and method == method_named(name, retention)
